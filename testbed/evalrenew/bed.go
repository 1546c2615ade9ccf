// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/testbed"
)

// bed is a private Podman.
type bed struct {
	dir     string
	whittle string
	tail    time.Duration // how long the load goes on before and after
	env     *testbed.Env
}

func newBed(ctx context.Context, o options) (b *bed, err error) {
	b = &bed{whittle: o.whittle, tail: o.tail}
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
	args := append([]string{"create", "--name", name}, s.options(s.port)...)
	for _, m := range s.mounts {
		args = append(args, "-v", m)
	}
	_, err := b.env.Run(ctx, append(args, s.image())...)
	return err
}

// own times of a service, without load: what its engine does besides is not the service's.
type own struct {
	boots []time.Duration // from its exec to its first answer
	stops []time.Duration // from its stop signal to its end
}

// times that a service takes by itself. Each is of a container of its own: Podman cleans up after one that ended when it finds the
// time, whatever was made of it meanwhile.
func (b *bed) times(ctx context.Context, s *service, n int) (t own, err error) {
	if _, err := b.env.Run(ctx, "stop", "-t", "60", s.name); err != nil {
		return t, err
	}
	for range n {
		boot, stop, err := b.bootOnce(ctx, s, s.name+"-boot")
		if err != nil {
			return t, fmt.Errorf("boot %s: %w", s.name, err)
		}
		t.boots, t.stops = append(t.boots, boot), append(t.stops, stop)
	}
	slices.Sort(t.boots)
	slices.Sort(t.stops)
	if _, err := b.env.Run(ctx, "start", s.name); err != nil {
		return t, err
	}
	return t, s.answers(ctx, s.request(0))
}

func (b *bed) bootOnce(ctx context.Context, s *service, name string) (boot, stop time.Duration, err error) {
	if err := b.create(ctx, s, name); err != nil {
		return 0, 0, err
	}
	if _, err := b.env.Run(ctx, "init", name); err != nil {
		return 0, 0, err
	}
	text, err := b.env.Run(ctx, "inspect", "--format", "{{.State.Pid}}", name)
	if err != nil {
		return 0, 0, err
	}
	pid, err := strconv.Atoi(text)
	if err != nil {
		return 0, 0, err
	}
	started := make(chan error, 1)
	go func() { _, err := b.env.Run(ctx, "start", name); started <- err }()
	at, err := executed(text)
	err = errors.Join(err, s.answers(ctx, s.request(0)))
	boot = time.Since(at)
	if err := errors.Join(err, <-started); err != nil {
		return 0, 0, err
	}
	if stop, err = stopped(pid, s.config.StopSignal); err != nil {
		return 0, 0, err
	}
	if _, err := b.env.Run(ctx, "stop", "-t", "60", name); err != nil {
		return 0, 0, err
	}
	_, err = b.env.Run(ctx, "rm", name)
	return boot, stop, err
}

// stopped sends the signal, and waits for the end.
func stopped(pid int, signal string) (time.Duration, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	number := unix.SignalNum(cmp.Or(signal, "SIGTERM"))
	began := time.Now()
	if err := unix.PidfdSendSignal(fd, number, nil, 0); err != nil {
		return 0, fmt.Errorf("stop it: %w", err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		switch n, err := unix.Poll(fds, int(patience.Milliseconds())); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, errors.New("it does not stop")
		default:
			return time.Since(began), nil
		}
	}
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
