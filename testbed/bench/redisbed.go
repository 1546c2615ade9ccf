// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/testbed"
)

const redisImage = "localhost/redis:bench"

// redisBed is a private podman with an image of the installed Redis, and what was learned of it.
type redisBed struct {
	bench   *bench
	env     *testbed.Env
	profile string // file
	allowed kernel.Allowed
	started int
}

func newRedisBed(ctx context.Context, b *bench) (bed *redisBed, err error) {
	bed = &redisBed{bench: b}
	if bed.env, err = testbed.Up(ctx, filepath.Join(b.dir, "bed"), ""); err != nil {
		return nil, err
	}
	if err := bed.prepare(ctx); err != nil {
		return nil, errors.Join(err, bed.close())
	}
	return bed, nil
}

func (bed *redisBed) close() error { return bed.env.Down() }

func (bed *redisBed) prepare(ctx context.Context) error {
	debian := testbed.Debian{Packages: []string{"redis-server"}, Follow: regexp.MustCompile("^redis")}
	files, err := debian.Files(ctx)
	if err != nil {
		return err
	}
	archive := filepath.Join(bed.bench.dir, "redis.tar")
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	config := image.Config{Name: redisImage}
	config.Entrypoint = []string{"/usr/bin/redis-server"}
	if err := errors.Join(image.Write(f, config, files), f.Close()); err != nil {
		return err
	}
	if _, err := bed.env.Run(ctx, "load", "--quiet", "--input", archive); err != nil {
		return err
	}
	bed.bench.say("redis: learning its profile")
	return bed.learn(ctx)
}

// learn with the agent, from the first call to the last, as a user would.
func (bed *redisBed) learn(ctx context.Context) (err error) {
	a, err := startAgent(ctx, bed.bench, "--hooks-dir", bed.env.HooksDir())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop(), removeHooks(bed.env.HooksDir())) }()
	r, err := bed.start(ctx, "")
	if err != nil {
		return err
	}
	_, err = r.load(ctx, redisRequests)
	if err == nil {
		_, err = bed.env.Run(ctx, "stop", r.name)
	}
	if err := errors.Join(err, bed.remove(r)); err != nil {
		return err
	}
	var id string
	for range 100 {
		known, err := a.client.Workloads(ctx)
		if err != nil {
			return err
		}
		status, err := a.client.Status(ctx)
		if err != nil {
			return err
		}
		if len(known) > 0 && len(status.Containers) == 0 {
			id = known[0].ID
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if id == "" {
		return errors.New("the agent learned nothing of redis")
	}
	return bed.export(ctx, a, id)
}

func (bed *redisBed) export(ctx context.Context, a *agentProcess, id string) error {
	text, err := a.command(ctx, "policy", "export", id).Output()
	if err != nil {
		return fmt.Errorf("export the policy: %w", err)
	}
	bed.profile = filepath.Join(bed.bench.dir, "redis.json")
	if err := os.WriteFile(bed.profile, text, 0o600); err != nil {
		return err
	}
	p, err := a.client.Policy(ctx, id)
	if err != nil {
		return err
	}
	bed.allowed = kernel.Allowed{Calls: map[syscalls.ABI]syscalls.Set{}}
	for abi := range p.ABIs {
		bed.allowed.Calls[abi] = policy.AllowedSet(p, policy.Selection{}, abi)
	}
	return nil
}

func removeHooks(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// redisServer is one container.
type redisServer struct {
	name            string
	port, pid       int
	cgroup, mountNS uint64
}

// start a container under a profile; "" means the engine's default. It answers when this returns.
func (bed *redisBed) start(ctx context.Context, profile string) (*redisServer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	bed.started++
	r := &redisServer{name: fmt.Sprintf("redis-%d", bed.started), port: port}
	args := []string{"run", "--detach", "--name", r.name, "--network", "host"}
	if profile != "" {
		args = append(args, "--security-opt", "seccomp="+profile)
	}
	args = append(args, redisImage, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	if _, err := bed.env.Run(ctx, args...); err != nil {
		return nil, err
	}
	if err := bed.identify(ctx, r); err != nil {
		logs, _ := bed.env.Run(context.WithoutCancel(ctx), "logs", r.name)
		return nil, errors.Join(fmt.Errorf("start redis: %w: %s", err, logs), bed.remove(r))
	}
	return r, nil
}

func (bed *redisBed) identify(ctx context.Context, r *redisServer) error {
	text, err := bed.env.Run(ctx, "inspect", r.name)
	if err != nil {
		return err
	}
	var found []struct{ State struct{ Pid int } }
	if err := json.Unmarshal([]byte(text), &found); err != nil || len(found) != 1 {
		return fmt.Errorf("understand podman inspect: %w", err)
	}
	r.pid = found[0].State.Pid
	p, err := process.Open(r.pid)
	if err != nil {
		return err
	}
	defer p.Close()
	if r.cgroup, err = p.CgroupID(); err != nil {
		return err
	}
	if r.mountNS, err = p.MountNS(); err != nil {
		return err
	}
	for range 200 {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)))
		if err == nil {
			conn.Close()
			return r.favour()
		}
		if err := errors.Join(ctx.Err(), p.Alive()); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("it does not answer")
}

func (bed *redisBed) remove(r *redisServer) error {
	// Also after SIGINT.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := bed.env.Run(ctx, "rm", "--force", "--time", "0", r.name)
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// runTime of the main thread, which is the one that serves.
func (r *redisServer) runTime() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", r.pid, r.pid))
	if err != nil {
		return 0, fmt.Errorf("read the server's CPU time: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	n, err := strconv.ParseInt(first, 10, 64)
	return time.Duration(n), err
}

// niceness of who may not run in real time.
const niceness = -15

// favour gives the server the last CPU, before all others.
func (r *redisServer) favour() error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", r.pid))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return err
		}
		if err := favour(tid, runtime.NumCPU()-1); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("give the server a CPU: %w", err)
		}
	}
	return nil
}

// favour a task with a CPU and, where that is allowed, real time.
func favour(tid, cpu int) error {
	if runtime.NumCPU() > 1 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(tid, &set); err != nil {
			return err
		}
	}
	if unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, niceness) // not allowed either: only noisier
	}
	return nil
}

// favoured is how a client starts with the first CPU. Not by favouring our own thread for a moment: threads that end take the
// processes with them that die with their parent.
const favoured = `chrt -f 1 true 2>/dev/null && exec taskset -c 0 chrt -f 1 "$0" "$@"; exec taskset -c 0 nice -n -15 "$0" "$@"`
