// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

var buildRenewer = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "renewer")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", bin, "testdata/renewer.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the renewer: %w: %s", err, out)
	}
	return bin, err
})

// killed makes a renewal in a process that is killed when a step begins.
func (b *renewBed) killed(t *testing.T, q renew.Request, step renew.Step) {
	t.Helper()
	bin, err := buildRenewer()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, b.env.Socket(), b.dir, string(step))
	cmd.Stdin = strings.NewReader(string(text))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed at %s: %v: %s", step, err, out)
	}
}

// Wherever a renewal's process is killed, Recover leaves one instance that serves, and nothing else.
func TestRenewalKilledAtEachStep(t *testing.T) {
	for _, tt := range []struct {
		strategy renew.Strategy
		data     bool
	}{{renew.Overlap, false}, {renew.Hold, true}} {
		t.Run(string(tt.strategy), func(t *testing.T) {
			b := upRenew(t, tt.data)
			plan, err := b.runner().Plan(t.Context(), b.request("", tt.strategy))
			if err != nil || len(plan.Steps) < 10 {
				t.Fatalf("plan: %s, %v", describe(plan), err)
			}
			forward := false
			for i, step := range plan.Steps {
				forward = forward || step == renew.StepTurn
				if i > 0 {
					b.clear(t)
					b.begin(t)
				}
				if ok := t.Run(string(step), func(t *testing.T) { b.recovers(t, b.request("", tt.strategy), step, forward) }); !ok {
					b.clear(t)
					b.dir = filepath.Join(t.TempDir(), "renew")
				}
			}
		})
	}
}

func (b *renewBed) recovers(t *testing.T, q renew.Request, step renew.Step, forward bool) {
	b.killed(t, q, step)
	if _, err := b.runner().Run(t.Context(), q); !errors.Is(err, renew.ErrUnfinished) {
		t.Errorf("another renewal before it is recovered: %v, want ErrUnfinished", err)
	}
	outcome, who := renew.RolledBack, "first"
	if forward {
		outcome, who = renew.Renewed, "second"
	}
	results, err := b.runner().Recover(t.Context())
	if err != nil || len(results) != 1 || results[0].Outcome != outcome || !strings.Contains(results[0].Why, "killed, at "+string(step)) {
		t.Errorf("recover: %s, %v; want it %s", describe(results), err, outcome)
	}
	b.holds(t, who)
	if again, err := b.runner().Recover(t.Context()); err != nil || len(again) != 0 {
		t.Errorf("once more: %s, %v; want nothing to do", describe(again), err)
	}
	// The service listens as it did: another renewal succeeds.
	if step != renew.StepTurn && step != renew.StepStart {
		return
	}
	if result := renewed(t, b.runner(), b.request("", q.Strategy)); result.Outcome != renew.Renewed {
		t.Errorf("the next renewal: %s", describe(result))
	}
	b.holds(t, "second")
}

// Somebody removes the predecessor after a renewal was cut off: who serves goes on, and nothing is left of who does not.
func TestRenewalKilledAndPredecessorRemoved(t *testing.T) {
	b := upRenew(t, true)
	q := b.request("", renew.Hold)
	b.killed(t, q, renew.StepReady)
	if plan, err := b.runner().Plan(t.Context(), q); err != nil || !strings.Contains(plan.Refused+plan.Hint, "--recover") {
		t.Errorf("plan: %s, %v; want it to name what has to be done first", describe(plan), err)
	}
	bedtest.Podman(t, b.env, "rm", "--force", "--time", "0", b.id)
	results, err := b.runner().Recover(t.Context())
	if err != nil || len(results) != 1 || results[0].Outcome != renew.Renewed {
		t.Errorf("recover from ready: %s, %v; want it renewed", describe(results), err)
	}
	b.holds(t, "second")

	b.killed(t, q, renew.StepForm)
	if plan, err := b.runner().Plan(t.Context(), q); err != nil || !strings.Contains(strings.Join(plan.Warnings, "\n"), "--recover") {
		t.Errorf("plan: %s, %v; want a warning", describe(plan), err)
	}
	bedtest.Podman(t, b.env, "rm", "--force", "--time", "0", "web")
	results, err = b.runner().Recover(t.Context())
	if err != nil || len(results) != 1 || results[0].Outcome != renew.Broken || !strings.Contains(results[0].Why, "removed the predecessor") {
		t.Errorf("recover from form: %s, %v; want it failed", describe(results), err)
	}
	if names := bedtest.Podman(t, b.env, "ps", "--all", "--format", "{{.Names}}"); names != "" {
		t.Errorf("containers are left: %s", names)
	}
	if again, err := b.runner().Recover(t.Context()); err != nil || len(again) != 0 {
		t.Errorf("once more: %s, %v; want nothing to do", describe(again), err)
	}
}

// Two renewals of one container: one is made, the other is told who makes it.
func TestTwoRenewalsAtOnce(t *testing.T) {
	b := upRenew(t, true)
	clients := b.clients(t)
	type end struct {
		result renew.Result
		err    error
	}
	ends := make(chan end, 2)
	for range 2 {
		go func() {
			result, err := b.runner().Run(t.Context(), b.request("", ""))
			ends <- end{result, err}
		}()
	}
	made := 0
	for range 2 {
		switch e := <-ends; {
		case e.err == nil && e.result.Outcome == renew.Renewed:
			made++
		case errors.Is(e.err, renew.ErrBusy) && strings.Contains(e.err.Error(), fmt.Sprintf("by process %d", os.Getpid())):
		case e.err != nil && strings.Contains(e.err.Error(), "look at web again"): // it looked before the first had begun
		default:
			t.Errorf("neither made nor busy: %v, %s", e.err, describe(e.result))
		}
	}
	if stats := clients.Stop(); made != 1 || stats.Failed > 0 {
		t.Errorf("%d were made; %v", made, stats)
	}
	b.holds(t, "second")
}
