// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/testbed"
)

// bed is a private Podman and an agent that its containers are announced to; and another Podman, of whose containers the agent
// knows nothing: what it knows and does not supervise, it observes.
type bed struct {
	dir    string
	env    *testbed.Env
	plain  *testbed.Env
	agent  *exec.Cmd
	client *api.Client
}

func newBed(ctx context.Context, whittle string) (b *bed, err error) {
	b = &bed{}
	if b.dir, err = os.MkdirTemp("", "whittle-loops-"); err != nil {
		return nil, err
	}
	if b.env, err = testbed.Up(ctx, b.path("bed"), ""); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	if b.plain, err = testbed.Up(ctx, b.path("plain"), ""); err != nil {
		return nil, errors.Join(err, b.close())
	}
	if err := b.startAgent(ctx, whittle); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bed) startAgent(ctx context.Context, whittle string) error {
	log, err := os.Create(b.path("agent.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// Not CommandContext: at Ctrl-C it ends after its containers.
	b.agent = exec.Command(whittle, "agent", "--socket", b.path("sock"), "--state", b.path("state"),
		"--podman", b.env.Socket(), "--hooks-dir", b.env.HooksDir())
	b.agent.Stderr = log
	b.agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.agent.Start(); err != nil {
		return err
	}
	b.client = api.NewClient(b.path("sock"))
	return until(ctx, 20*time.Second, "the agent answers", func() bool {
		_, err := b.client.Status(ctx)
		return err == nil
	})
}

func (b *bed) close() error {
	var errs []error
	if b.client != nil {
		errs = append(errs, b.client.Close())
	}
	errs = append(errs, b.env.Down())
	if b.plain != nil {
		errs = append(errs, b.plain.Down())
	}
	if b.agent != nil && b.agent.Process != nil {
		errs = append(errs, b.agent.Process.Signal(unix.SIGTERM))
		late := time.AfterFunc(20*time.Second, func() { _ = b.agent.Process.Kill() })
		errs = append(errs, b.agent.Wait(), b.endHolder())
		late.Stop()
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// endHolder of the agent's listeners, which would stay for a while, for the next agent. It is nobody's child.
func (b *bed) endHolder() error {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		text, _ := os.ReadFile(name) // it may be gone
		words := strings.Split(string(text), "\x00")
		if len(words) < 2 || words[1] != "holder" || !slices.Contains(words, b.path("holder.sock")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err == nil {
			err = unix.Kill(pid, unix.SIGTERM)
		}
		return err
	}
	return nil
}

// explain what went wrong, as far as the agent says.
func (b *bed) explain() error {
	log, err := os.ReadFile(b.path("agent.log"))
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return fmt.Errorf("the agent's last words:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
}

func until(ctx context.Context, limit time.Duration, what string, holds func() bool) error {
	for end := time.Now().Add(limit); !holds(); {
		if time.Now().After(end) {
			return fmt.Errorf("not within %s: %s", limit, what)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
