// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/store"
)

// TestInjectorKilled at every step of an attach: its container goes on, the record says what is true, and a second attach
// brings what is missing. The same for the whole injector, and for the agent.
func TestInjectorKilled(t *testing.T) {
	ms := learnedMasters(t, nil, func(s *specs.Spec) { s.Process.NoNewPrivileges = false }) // so that it has to be set
	for _, step := range inject.Steps {
		t.Run(step, func(t *testing.T) {
			d := ms.d.as(t)
			here := &masters{d: d, root: ms.root, config: ms.config, workload: ms.workload}
			d.end(unix.SIGTERM)
			t.Setenv(inject.StopEnvironment, step)
			d.start(noEngine...)
			os.Unsetenv(inject.StopEnvironment)
			*ms.d = *d
			ms.d.t = t

			one := here.start(t, "tracer-"+step)
			attached := one.attach()
			_, tracer := d.injector()
			kill(t, tracer)
			if err := <-attached; err != nil {
				t.Errorf("with the tracer killed: %v", err)
			}
			one.protected()

			two := here.start(t, "both-"+step)
			attached = two.attach()
			guardian, tracer := d.injector()
			kill(t, guardian)
			kill(t, tracer)
			if err := <-attached; err == nil {
				t.Error("with both killed the attach has succeeded")
			}
			two.attachedAgain()

			three := here.start(t, "agent-"+step)
			attached = three.attach()
			_, tracer = d.injector()
			d.end(unix.SIGKILL)
			if err := <-attached; err == nil {
				t.Error("with the agent killed the attach has succeeded")
			}
			kill(t, tracer)
			d.start(noEngine...)
			*ms.d = *d
			ms.d.t = t
			three.attachedAgain()
			one.protected()
			two.protected()
			d.end(unix.SIGTERM)
			here.recorded(one, two, three)
		})
	}
	ms.d.t = t
}

// attach has the agent put its filter into the running servant, and says how that went.
func (s *servant) attach() <-chan error {
	done := make(chan error, 1)
	go func() {
		out, err := s.ms.d.try("attach", s.id)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	return done
}

// attachedAgain makes sure that it is protected when an attach has failed, whatever that left behind.
func (s *servant) attachedAgain() {
	s.t.Helper()
	if !s.alive() {
		s.t.Fatalf("%s is dead: %s", s.id, s.stderr)
	}
	if m := s.does("call", unix.SYS_GETPPID, 1); m.good+m.failed != 1 { // anything: it is not stopped
		s.t.Errorf("%+v", m)
	}
	ctx, stop := context.WithTimeout(s.t.Context(), patience)
	var going sync.WaitGroup
	defer going.Wait() // it looks at the agent, which may be another afterwards
	defer stop()
	agent := s.ms.d.cmd.Process.Pid
	going.Go(func() { goOn(ctx, agent) })
	var err error
	for ctx.Err() == nil { // until the agent has found what was left
		if err = <-s.attach(); err == nil {
			s.protected()
			return
		}
		time.Sleep(glance)
	}
	s.t.Fatalf("a second attach: %v; %s", err, s.threads())
}

// protected: its calls are answered as its policy says. In between the workload is enforced.
func (s *servant) protected() {
	s.t.Helper()
	s.supervised()
	s.ms.d.whittle("policy", "mode", s.ms.workload, "enforce")
	defer s.ms.d.whittle("policy", "mode", s.ms.workload, "learn")
	s.allowed(unix.SYS_PERSONALITY, 3)
	s.refused(3)
	if state := stateOf(s.pid); state == 'T' || state == 't' {
		s.t.Errorf("%s is left stopped", s.id)
	}
}

// recorded: no servant is under fewer filters than the store says. The agent has ended.
func (ms *masters) recorded(servants ...*servant) {
	t := ms.d.t
	t.Helper()
	all := ms.records()
	for _, s := range servants {
		done := 0
		for _, r := range all {
			if r.ID != s.id {
				continue
			}
			if r.State == store.Done {
				done++
			} else {
				t.Errorf("left: %+v", r)
			}
		}
		if have := s.filters() - 1; done > have || done == 0 { // one came with the bundle
			t.Errorf("%s: %d filters were recorded, and %d are there: %+v", s.id, done, have, all)
		}
	}
}

// records of what is supervised. The agent has ended.
func (ms *masters) records() []store.Supervised {
	t := ms.d.t
	t.Helper()
	db, err := store.Open(ms.d.state, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, err := db.Supervised(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// left are the records after the agent has been stopped.
func (ms *masters) left() []store.Supervised {
	ms.d.t.Helper()
	ms.d.stop()
	return ms.records()
}

// injector waits for the tracer to stop, and says who it and its guardian are.
func (d *daemon) injector() (guardian, tracer int) {
	d.t.Helper()
	eventually(d.t, "the tracer stops itself", func() (bool, string) {
		for _, g := range startedBy(d.cmd.Process.Pid) {
			for _, p := range startedBy(g) {
				if stateOf(p) == 'T' {
					guardian, tracer = g, p
					return true, ""
				}
			}
		}
		return false, d.log.String()
	})
	return guardian, tracer
}

// goOn with whatever injector of an agent stops, until ctx is done.
func goOn(ctx context.Context, agent int) {
	for ; ctx.Err() == nil; time.Sleep(glance / 10) {
		for _, g := range startedBy(agent) {
			for _, p := range startedBy(g) {
				if stateOf(p) == 'T' {
					_ = unix.Kill(p, unix.SIGCONT) // it may be gone
				}
			}
		}
	}
}

// startedBy a process: the children of all its threads.
func startedBy(pid int) (pids []int) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// stateOf a process: 0 when it is gone.
func stateOf(pid int) byte { return stateAt(fmt.Sprintf("/proc/%d", pid)) }

// stateAt a directory of /proc.
func stateAt(dir string) byte {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
	return rest[0]
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("kill %d: %v", pid, err)
	}
}
