// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/testbed"
)

// bed is a private Podman.
type bed struct {
	dir     string
	whittle string
	env     *testbed.Env
}

func newBed(ctx context.Context, whittle string) (b *bed, err error) {
	b = &bed{whittle: whittle}
	if b.dir, err = os.MkdirTemp("", "whittle-renew-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { // PostgreSQL's user has its data below
		return nil, err
	}
	if b.env, err = testbed.Up(ctx, filepath.Join(b.dir, "bed"), ""); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	return b, nil
}

func (b *bed) close() error { return errors.Join(b.env.Down(), os.RemoveAll(b.dir)) }

func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := command(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// create the container of a service, and not start it.
func (b *bed) create(ctx context.Context, s *service, name string) error {
	args := []string{"create", "--name", name, "--network", "host"}
	for _, m := range s.mounts {
		args = append(args, "-v", m)
	}
	_, err := b.env.Run(ctx, append(args, s.image())...)
	return err
}

// boot times of a service: from its exec to its first answer. What its engine does before that is not the service's. Each is
// of a container of its own: Podman cleans up after one that ended when it finds the time, whatever was made of it meanwhile.
func (b *bed) boot(ctx context.Context, s *service, times int) (all []time.Duration, err error) {
	if _, err := b.env.Run(ctx, "stop", "-t", "60", s.name); err != nil {
		return nil, err
	}
	for range times {
		took, err := b.bootOnce(ctx, s, s.name+"-boot")
		if err != nil {
			return nil, fmt.Errorf("boot %s: %w", s.name, err)
		}
		all = append(all, took)
	}
	slices.Sort(all)
	if _, err := b.env.Run(ctx, "start", s.name); err != nil {
		return nil, err
	}
	return all, s.answers(ctx, patience, s.request)
}

func (b *bed) bootOnce(ctx context.Context, s *service, name string) (time.Duration, error) {
	if err := b.create(ctx, s, name); err != nil {
		return 0, err
	}
	if _, err := b.env.Run(ctx, "init", name); err != nil {
		return 0, err
	}
	pid, err := b.env.Run(ctx, "inspect", "--format", "{{.State.Pid}}", name)
	if err != nil {
		return 0, err
	}
	started := make(chan error, 1)
	go func() { _, err := b.env.Run(ctx, "start", name); started <- err }()
	at, err := executed(pid)
	err = errors.Join(err, s.answers(ctx, patience, s.request))
	took := time.Since(at)
	if err := errors.Join(err, <-started); err != nil {
		return 0, err
	}
	if _, err := b.env.Run(ctx, "stop", "-t", "60", name); err != nil {
		return 0, err
	}
	_, err = b.env.Run(ctx, "rm", name)
	return took, err
}

// executed waits until the runtime's process has become the service.
func executed(pid string) (time.Time, error) {
	exe := "/proc/" + pid + "/cmdline"
	before, err := os.ReadFile(exe)
	if err != nil {
		return time.Time{}, err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		if now, err := os.ReadFile(exe); err != nil || !bytes.Equal(now, before) {
			return time.Now(), err
		}
	}
	return time.Time{}, errors.New("it was not executed")
}
