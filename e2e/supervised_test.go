// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// compileShared is compile for what a service loads.
func compileShared(t *testing.T, source string) string {
	t.Helper()
	testenv.NeedGCC(t)
	out := filepath.Join(t.TempDir(), strings.TrimSuffix(source, ".c")+".so")
	if text, err := exec.Command("gcc", "-O1", "-shared", "-fPIC", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
		"-o", out, filepath.Join("testdata", source)).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v: %s", source, err, text)
	}
	return out
}

// supervisedBed is a private Podman with an agent.
func supervisedBed(t *testing.T, runtime string, flags ...string) (*testbed.Env, *daemon) {
	t.Helper()
	testenv.NeedBPF(t)
	testenv.NeedPodman(t)
	if runtime != "" {
		testenv.NeedRuntime(t, runtime)
	}
	e := bedtest.Up(t, runtime)
	return e, startAgent(t, append([]string{"--podman", e.Socket(), "--hooks-dir", e.HooksDir()}, flags...)...)
}

// supervised waits until a container is, in a phase and with a mode.
func (d *daemon) supervised(name string, mode api.WorkloadMode, phase policy.Phase) api.Container {
	d.t.Helper()
	return d.container(name, fmt.Sprintf("is supervised: %s, %s", mode, phase), func(c api.Container) bool {
		s := c.Supervision
		return s != nil && s.Listeners > 0 && s.Mode == mode && s.Phase == phase
	})
}

// asIntended waits until the agent has read back the filters of a container.
func (d *daemon) asIntended(name string) {
	d.t.Helper()
	c := d.container(name, "has had its filters read back", func(c api.Container) bool {
		return c.Supervision != nil && c.Supervision.Attestation != ""
	})
	if s := c.Supervision; s.Deviates || !strings.HasPrefix(s.Attestation, "as intended") {
		d.t.Errorf("the kernel's filters of %s: %s", name, s.Attestation)
	}
}

// heldLines of the journal, of one kind: "refused" or "would-refuse".
func (d *daemon) heldLines(kind string) (all []api.HeldLine) {
	d.t.Helper()
	for _, e := range d.events() {
		if e.Kind != kind || len(e.Data) == 0 {
			continue
		}
		var l api.HeldLine
		if err := json.Unmarshal(e.Data, &l); err != nil {
			d.t.Fatalf("the event %+v: %v", e, err)
		}
		all = append(all, l)
	}
	return all
}

// nothingRefused to a service, and no trouble.
func (d *daemon) nothingRefused(why string) {
	d.t.Helper()
	for _, e := range d.events() {
		switch e.Kind {
		case "refused", "would-refuse", "problem":
			d.t.Errorf("%s: %s: %s", why, e.Kind, e.Text)
		}
	}
}

// exited with 0: a container that was stopped has ended by itself.
func exited(t *testing.T, e *testbed.Env, name string) {
	t.Helper()
	if code := bedtest.Podman(t, e, "inspect", "--format", "{{.State.ExitCode}}", name); code != "0" {
		log, _ := e.Command(t.Context(), "logs", "--tail", "30", name).CombinedOutput()
		t.Errorf("%s ended with %s: %s", name, code, log)
	}
}

// load uses a service until it is stopped. One error is one too many.
type load struct {
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}
	uses atomic.Int64
	err  error
}

// startLoad of some uses at a time. A use makes a connection of its own or keeps one; it returns when the context is done.
func startLoad(t *testing.T, some int, use func(ctx context.Context, worker int) error) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, stop: cancel, done: make(chan struct{})}
	errs := make(chan error, some)
	for worker := range some {
		go func() {
			for ctx.Err() == nil {
				if err := use(ctx, worker); err != nil && ctx.Err() == nil {
					errs <- err
					return
				}
				l.uses.Add(1)
			}
			errs <- nil
		}()
	}
	go func() {
		defer close(l.done)
		for range some {
			if err := <-errs; err != nil && l.err == nil {
				l.err = err
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-l.done })
	return l
}

// goOn waits for so many more uses.
func (l *load) goOn(uses int64) {
	l.t.Helper()
	want := l.uses.Load() + uses
	eventually(l.t, "the load goes on", func() (bool, string) {
		select {
		case <-l.done:
			l.t.Fatalf("the load failed after %d uses: %v", l.uses.Load(), l.err)
		default:
		}
		return l.uses.Load() >= want, fmt.Sprint(l.uses.Load())
	})
}

// end it and say whether every use was answered.
func (l *load) end() {
	l.t.Helper()
	l.stop()
	<-l.done
	if l.err != nil {
		l.t.Errorf("after %d uses: %v", l.uses.Load(), l.err)
	}
}
