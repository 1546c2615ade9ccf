// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
)

// guard is a real agent with a socket and a state directory of its own.
type guard struct {
	whittle, dir, socket string
	cmd                  *exec.Cmd
	ended                chan error
	log                  bytes.Buffer
	client               *api.Client
	seen                 int64 // the ID of the last event that was read
}

// startGuard with a corpus; from is the directory of an agent that has ended, whose state it goes on with, or "". That may be edited
// first, unless edit is nil.
func startGuard(ctx context.Context, whittle, corpus, from string, edit func(dir string) error) (*guard, error) {
	dir, err := os.MkdirTemp("/var/tmp", "whittle-eval-")
	if err != nil {
		return nil, err
	}
	g := &guard{whittle: whittle, dir: dir, socket: filepath.Join(dir, "sock")}
	if from != "" {
		if err := os.CopyFS(g.state(), os.DirFS(filepath.Join(from, "state"))); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	if edit != nil {
		if err := edit(dir); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	g.client = api.NewClient(g.socket)
	// Not CommandContext: an interrupted run stops it as any other.
	g.cmd = exec.Command(whittle, "--socket", g.socket, "--state", g.state(), "agent", "--podman", "", "--mode", "learn", "--corpus", corpus)
	g.cmd.Stderr = &g.log
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Setpgid: Ctrl-C is ours
	if err := g.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	for range 500 {
		if _, err = g.client.Status(ctx); err == nil {
			return g, nil
		}
		if ctx.Err() != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("start the agent: %w", err), g.end(), g.remove())
}

// start it, by a thread that lives as long as it does: Pdeathsig is sent when the thread ends that made it, and package
// services ends threads.
func (g *guard) start() error {
	started := make(chan error)
	g.ended = make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := g.cmd.Start()
		started <- err
		if err == nil {
			g.ended <- g.cmd.Wait()
		}
	}()
	return <-started
}

func (g *guard) state() string { return filepath.Join(g.dir, "state") }

// runtime is the command line of the OCI runtime that a container is started with: crun, as it takes any profile.
func (g *guard) runtime() []string {
	return []string{g.whittle, "--socket", g.socket, "runtime", "--real", "crun", "--"}
}

// end it as an init system does, and the holder of its listeners after it. Its state stays until remove.
func (g *guard) end() (err error) {
	if g.cmd == nil {
		return nil
	}
	defer func() { err = errors.Join(err, g.endHolder()); g.cmd = nil }()
	_ = g.client.Close()
	_ = g.cmd.Process.Signal(unix.SIGTERM)
	late := time.AfterFunc(20*time.Second, func() { _ = g.cmd.Process.Kill() })
	defer late.Stop()
	if err := <-g.ended; err != nil {
		return fmt.Errorf("stop the agent: %w: %s", err, g.log.String()[max(0, g.log.Len()-2000):])
	}
	return nil
}

func (g *guard) remove() error { return os.RemoveAll(g.dir) }

// endHolder now: it would stay for a while, for the next agent. It is nobody's child.
func (g *guard) endHolder() error {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		text, _ := os.ReadFile(name) // it may be gone
		words := strings.Split(string(text), "\x00")
		if len(words) < 2 || words[1] != "holder" || !slices.Contains(words, filepath.Join(g.dir, "holder.sock")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		for range 250 {
			if err != nil || unix.Kill(pid, unix.SIGTERM) != nil {
				return nil
			}
			time.Sleep(20 * time.Millisecond)
		}
		return fmt.Errorf("the holder %d does not end", pid)
	}
	return nil
}

// forgotten waits until no container is left, whose lesson is stored then.
func (g *guard) forgotten(ctx context.Context) error {
	for range 500 {
		s, err := g.client.Status(ctx)
		if err != nil {
			return err
		}
		if len(s.Containers) == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("the agent does not notice that the container has ended")
}

// container by its name.
func (g *guard) container(ctx context.Context, name string) (api.Container, error) {
	s, err := g.client.Status(ctx)
	if err != nil {
		return api.Container{}, err
	}
	for _, c := range s.Containers {
		if c.Name == name {
			return c, nil
		}
	}
	return api.Container{}, fmt.Errorf("the agent knows no container %s", name)
}

// news is what the journal has of the panel and of refusals.
type news struct {
	Cases   []judge.Case
	Refused []api.HeldLine
	Other   []string // problems
}

// journalWait is how long the agent has to write down what has happened: it does so at once, but not before the answer.
const journalWait = 600 * time.Millisecond

// news since the last time.
func (g *guard) news(ctx context.Context) (n news, err error) {
	time.Sleep(journalWait)
	for {
		events, err := g.client.Events(ctx, api.EventQuery{After: g.seen, Limit: 500, Oldest: true})
		if err != nil {
			return n, err
		}
		for _, e := range events {
			g.seen = e.ID
			if err := n.add(e); err != nil {
				return n, err
			}
		}
		if len(events) < 500 {
			return n, nil
		}
	}
}

func (n *news) add(e api.Event) error {
	switch e.Kind {
	case judge.KindJudged:
		var c judge.Case
		if err := json.Unmarshal(e.Data, &c); err != nil {
			return fmt.Errorf("read event %d: %w", e.ID, err)
		}
		n.Cases = append(n.Cases, c)
	case "refused":
		var l api.HeldLine
		if err := json.Unmarshal(e.Data, &l); err != nil {
			return fmt.Errorf("read event %d: %w", e.ID, err)
		}
		n.Refused = append(n.Refused, l)
	case "problem", "denied":
		n.Other = append(n.Other, e.Kind+": "+e.Text)
	}
	return nil
}
