// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// workloadOf a command: what it executes, by content, and its arguments.
func workloadOf(args []string) (path string, w workload.Workload, err error) {
	if path, err = exec.LookPath(args[0]); err != nil {
		return "", w, fmt.Errorf("find the command: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", w, fmt.Errorf("find the command: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", w, fmt.Errorf("read the command: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", w, fmt.Errorf("read the command: %w", err)
	}
	return path, workload.Workload{Image: path, Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), Command: args}, nil
}

// record a command into a file.
func (a *app) record(ctx context.Context, args []string, f runFlags) error {
	if err := needRoot(); err != nil {
		return err
	}
	// A file that cannot be written is known before the command has run for hours.
	if info, err := os.Stat(f.record); err == nil && info.IsDir() {
		return fmt.Errorf("write the policy: %s is a directory", f.record)
	}
	out, err := os.CreateTemp(filepath.Dir(f.record), "."+filepath.Base(f.record)+".*")
	if err != nil {
		return fmt.Errorf("write the policy: %w", err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	p, status, err := a.learnFrom(ctx, args, f)
	if err != nil {
		return err
	}
	text, err := policy.Encode(p)
	if err != nil {
		return err
	}
	if err := writeAtomically(out, text, f.record); err != nil {
		return fmt.Errorf("write the policy: %w", err)
	}
	a.say("%s: %s", f.record, summary(p))
	return status.err()
}

func writeAtomically(f *os.File, text []byte, name string) error {
	_, err := f.Write(text)
	return errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close(), os.Rename(f.Name(), name))
}

func summary(p policy.Policy) string {
	s := "learned " + count(countCalls(p), "call")
	if p.Complete {
		return s + ", complete"
	}
	return s + ", PARTIAL: " + oneLine(strings.Join(p.Partial, "; "))
}

// learnFrom a command until it and everything it started has ended.
func (a *app) learnFrom(ctx context.Context, args []string, f runFlags) (policy.Policy, status, error) {
	var none policy.Policy
	if err := needRoot(); err != nil {
		return none, 0, err
	}
	path, w, err := workloadOf(args)
	if err != nil {
		return none, 0, err
	}
	observer, err := kernel.Open(logger(io.Discard, false))
	if err != nil {
		return none, 0, withDoctor(err)
	}
	defer observer.Close()
	group, err := newCgroup()
	if err != nil {
		return none, 0, err
	}
	defer group.remove()
	// Not ctx: SIGTERM is the command's, and observation goes on until it has ended.
	watching := watch(context.WithoutCancel(ctx), observer)
	defer watching.stop()
	id, err := observer.Observe(kernel.Target{CgroupID: group.id})
	if err != nil {
		return none, 0, withDoctor(err)
	}
	ended, err := a.runIn(group, command{path: path, argv: args, mountNS: f.mountNS})
	if err != nil {
		return none, 0, err
	}
	trace, err := observer.Finish(id, true)
	if err != nil {
		return none, 0, fmt.Errorf("drain what was observed: %w", err)
	}
	return propose(w, trace), ended, nil
}

// propose a policy whose floor is what `whittle run` itself needs between loading a filter and the command.
func propose(w workload.Workload, t observe.Trace) policy.Policy {
	p := policy.Normal(agent.Learn(w, t).Policy)
	addExecve(p)
	return p
}

// addExecve to the floor of the native ABI, in which whittle itself becomes the command: also if that is a program of
// another ABI and nothing else is native.
func addExecve(p policy.Policy) {
	c := p.ABIs[native]
	if c == nil {
		c = &policy.Calls{}
		p.ABIs[native] = c
	}
	if nr, ok := syscalls.Number(native, "execve"); ok {
		c.Floor.Add(nr)
	}
}

// watched is an observer that runs.
type watched struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func watch(ctx context.Context, o *kernel.Observer) watched {
	ctx, cancel := context.WithCancel(ctx)
	w := watched{cancel, make(chan struct{})}
	go func() {
		defer close(w.done)
		// Its error is the context's end; a trace that suffered says so in its account.
		_ = o.Run(ctx)
	}()
	return w
}

func (w watched) stop() {
	w.cancel()
	<-w.done
}

// runStored learns the first time and enforces afterwards.
func (a *app) runStored(ctx context.Context, args []string, f runFlags) error {
	if err := needRoot(); err != nil {
		return err
	}
	_, w, err := workloadOf(args)
	if err != nil {
		return err
	}
	known, err := a.known(ctx, w)
	if err != nil {
		return err
	}
	if known != nil && known.Complete && !f.learn {
		a.say("enforcing what was learned in %s: %s (--learn learns more)", count(known.Account.Runs, "run"), count(countCalls(*known), "call"))
		return a.enforce(ctx, args, *known, f)
	}
	switch {
	case known == nil:
		a.say("learning: nothing is known of this command yet")
	case f.learn:
		a.say("learning more, as --learn says")
	default:
		a.say("learning: what is known is partial: %s", oneLine(strings.Join(known.Partial, "; ")))
	}
	p, ended, err := a.learnFrom(ctx, args, f)
	if err != nil {
		return err
	}
	if err := a.importLearned(ctx, p); err != nil {
		return err
	}
	a.say("%s; %s", summary(p), a.command("policy show "+p.Workload.Name()))
	return ended.err()
}

// known policy of a workload; nil when there is none.
func (a *app) known(ctx context.Context, w workload.Workload) (*policy.Policy, error) {
	s, err := a.stored(ctx)
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.Close()
	p, err := s.Policy(ctx, w.ID())
	if errors.Is(err, api.ErrNotFound) {
		return nil, nil
	}
	return &p, err
}

// importLearned stores what a run taught, also where nothing was stored before.
func (a *app) importLearned(ctx context.Context, p policy.Policy) error {
	s, done, err := a.writable(ctx)
	if err != nil {
		return err
	}
	defer done()
	return s.Import(ctx, p, "whittle run")
}
