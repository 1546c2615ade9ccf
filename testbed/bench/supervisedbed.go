// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed"
)

// variant is how a container is started.
type variant string

const (
	unfiltered variant = "no filter"
	standard   variant = "default profile" // the engine's
	learned    variant = "learned from"    // under the engine's profile, with the agent observing
	supervised variant = "supervised"      // enforced, held calls answered by the agent
)

// supervisedBed is a private podman with images of some services, and the agent that has learned them.
type supervisedBed struct {
	bench    *bench
	env      *testbed.Env
	agent    *agentProcess
	noHooks  string // a directory: containers that are started with it are none of the agent's business
	probe    string // this program, static, to be run in containers
	subjects []*subject
	lock     sync.Mutex
	started  int
}

// bed of the sections about supervision, which is made when the first of them needs it.
func (b *bench) supervisedBed(ctx context.Context) (*supervisedBed, error) {
	if b.bed != nil {
		return b.bed, nil
	}
	bed := &supervisedBed{bench: b, noHooks: filepath.Join(b.dir, "no-hooks"), probe: filepath.Join(b.dir, "probe")}
	err := bed.up(ctx)
	if err != nil {
		return nil, errors.Join(err, bed.close())
	}
	b.bed = bed
	return bed, nil
}

func (bed *supervisedBed) up(ctx context.Context) (err error) {
	if err := errors.Join(os.Mkdir(bed.noHooks, 0o755), os.Chmod(bed.bench.dir, 0o711)); err != nil { // PostgreSQL's user passes
		return err
	}
	if err := build(ctx, bed.probe, "./testbed/bench"); err != nil {
		return err
	}
	if bed.env, err = testbed.Up(ctx, filepath.Join(bed.bench.dir, "services"), ""); err != nil {
		return err
	}
	if bed.agent, err = startAgent(ctx, bed.bench, "--hooks-dir", bed.env.HooksDir(), "--mode", string(api.ModeLearn)); err != nil {
		return err
	}
	for _, s := range []*subject{redisSubject(), nginxSubject(), postgresSubject()} {
		if missing := s.missing(); missing != "" {
			bed.bench.say("%s: not measured, there is no %s", s.name, missing)
			continue
		}
		bed.subjects = append(bed.subjects, s)
	}
	bed.subjects = append(bed.subjects, heldSubject())
	for _, s := range bed.subjects {
		if err := bed.load(ctx, s); err != nil {
			return fmt.Errorf("make an image of %s: %w", s.name, err)
		}
	}
	return bed.learn(ctx)
}

// close ends everything, the first thing last.
func (bed *supervisedBed) close() (err error) {
	if bed.env != nil {
		err = bed.env.Down()
	}
	if bed.agent != nil {
		err = errors.Join(err, bed.agent.stop())
	}
	return err
}

// services are the subjects with clients that load them.
func (bed *supervisedBed) services() (out []*subject) {
	for _, s := range bed.subjects {
		if s.load != nil {
			out = append(out, s)
		}
	}
	return out
}

func (bed *supervisedBed) load(ctx context.Context, s *subject) error {
	var files []image.File
	var err error
	if len(s.packages) > 0 {
		debian := testbed.Debian{Packages: s.packages, Follow: regexp.MustCompile(s.follow)}
		if files, err = debian.Files(ctx); err != nil {
			return err
		}
	} else {
		probe, err := image.Host(bed.probe, "/probe")
		if err != nil {
			return err
		}
		files = []image.File{probe}
	}
	archive := filepath.Join(bed.bench.dir, s.name+".tar")
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	config := image.Config{Name: s.image()}
	config.Entrypoint = s.command
	if err := errors.Join(image.Write(w, config, files), w.Flush(), f.Close()); err != nil {
		return err
	}
	_, err = bed.env.Run(ctx, "load", "--quiet", "--input", archive)
	return errors.Join(err, os.Remove(archive))
}

// instance is one container of a subject.
type instance struct {
	*subject
	container string
	port, pid int
	cgroup    string        // directory
	boot      time.Duration // from the engine's command to the first answer
}

func (bed *supervisedBed) podman(ctx context.Context, v variant, args ...string) *exec.Cmd {
	if v != learned && v != supervised {
		args = append([]string{"--hooks-dir", bed.noHooks}, args...)
	}
	return bed.env.Command(ctx, args...)
}

// arguments of podman that run a new container.
func (bed *supervisedBed) arguments(s *subject, v variant, name string, port int) ([]string, error) {
	args := []string{"run", "--name", name, "--network", "host"}
	if v == unfiltered {
		args = append(args, "--security-opt", "seccomp=unconfined")
	}
	more, err := s.options(bed, name, port)
	return append(append(args, more...), s.image()), err
}

// start a container and wait for its first answer.
func (bed *supervisedBed) start(ctx context.Context, s *subject, v variant) (*instance, error) {
	i := &instance{subject: s}
	var err error
	if i.port, err = freePort(); err != nil {
		return nil, err
	}
	bed.lock.Lock()
	bed.started++
	i.container = fmt.Sprintf("%s-%d", s.name, bed.started)
	bed.lock.Unlock()
	args, err := bed.arguments(s, v, i.container, i.port)
	if err != nil {
		return nil, err
	}
	cmd := bed.podman(ctx, v, append([]string{args[0], "--detach"}, args[1:]...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	answered := answers(ctx, i.open, i.port)
	i.boot = time.Since(began)
	if err := errors.Join(cmd.Wait(), answered, bed.identify(ctx, i)); err != nil {
		logs, _ := bed.env.Command(context.WithoutCancel(ctx), "logs", i.container).CombinedOutput()
		return nil, errors.Join(fmt.Errorf("start %s, %s: %w: %s%s", s.name, v, err, out.String(), logs), bed.remove(i))
	}
	return i, nil
}

// answers waits for the first answer. It asks often: what is compared differs by some ms.
func answers(ctx context.Context, open func(int) (*session, error), port int) (err error) {
	for began := time.Now(); time.Since(began) < 20*time.Second && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if err = askOnce(open, port); err == nil {
			return nil
		}
	}
	return fmt.Errorf("it does not answer: %w", errors.Join(err, ctx.Err()))
}

func (bed *supervisedBed) identify(ctx context.Context, i *instance) error {
	text, err := bed.env.Run(ctx, "inspect", "--format", "{{.State.Pid}}", i.container)
	if err != nil {
		return err
	}
	if i.pid, err = strconv.Atoi(text); err != nil {
		return err
	}
	p, err := process.Open(i.pid)
	if err != nil {
		return err
	}
	defer p.Close()
	i.cgroup, err = p.CgroupDir()
	return err
}

// remove a container, also after SIGINT.
func (bed *supervisedBed) remove(i *instance) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := bed.env.Run(ctx, "rm", "--force", "--time", "0", i.container)
	return errors.Join(err, os.RemoveAll(filepath.Join(bed.bench.dir, i.container)))
}
