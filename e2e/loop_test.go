// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	timeloop "github.com/whittle-sec/whittle/internal/loop" // the package has a loop of its own
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
	clients "github.com/whittle-sec/whittle/testbed/load"
	"github.com/whittle-sec/whittle/testbed/twins"
)

// loopPatience is for what has a time loop, or several, in it.
const loopPatience = 4 * time.Minute

// vulnd is built once for all tests.
var vulnd = sync.OnceValues(func() (twins.Twin, error) {
	dir := filepath.Join(scratch, "twins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return twins.Twin{}, err
	}
	return twins.Vulnd(context.Background(), dir)
})

// looped is a vulnerable service with an oracle, which began with an empty policy.
type looped struct {
	*daemon
	twin   twins.Twin
	target clients.Target
}

// beginLoops: its container is created, it is given an oracle, and started.
func beginLoops(t *testing.T, e *testbed.Env, d *daemon, twin twins.Twin) looped {
	t.Helper()
	port := 0
	if _, err := fmt.Sscan(freePort(t), &port); err != nil {
		t.Fatal(err)
	}
	bedtest.Podman(t, e, append([]string{"create", "--network", "host", "--name", "web", twin.Production.Name}, twin.Command(port)...)...)
	d.whittle("oracle", "set", "web", "--image", twin.Oracle.Name, "--start", "--quiet", "5s")
	bedtest.Podman(t, e, "start", "web")
	return looped{d, twin, twin.Target(port)}
}

// state of its loops.
func (l looped) state() api.LoopState {
	l.t.Helper()
	all := ask[[]api.LoopState](l.daemon, "loop", "status")
	if len(all) != 1 {
		l.t.Fatalf("loops of %d workloads: %+v", len(all), all)
	}
	return all[0]
}

func (l looped) history() []api.LoopRecord {
	l.t.Helper()
	return ask[[]api.LoopRecord](l.daemon, "loop", "history")
}

// use it as a client does: everything that it can be asked for.
func (l looped) use() error {
	for i, talk := range l.twin.Honest() {
		ctx, cancel := context.WithTimeout(l.t.Context(), 5*time.Second)
		err := l.target.Ask(ctx, talk)
		cancel()
		if err != nil {
			return fmt.Errorf("request %d: %w", i, err)
		}
	}
	return nil
}

// converge: it is used until production answers everything, and nobody has to do anything about it.
func (l looped) converge() time.Duration {
	l.t.Helper()
	began := time.Now()
	for last := ""; ; time.Sleep(glance) {
		err := l.use()
		s := l.state()
		if err == nil && s.State == timeloop.Production && l.use() == nil && l.state().State == timeloop.Production {
			return time.Since(began)
		}
		if now := fmt.Sprint(s.State, err); now != last {
			l.t.Logf("%s: %s, %v", time.Since(began).Round(glance), s.State, err)
			last = now
		}
		if time.Since(began) > loopPatience {
			l.t.Fatalf("it does not converge: %v, %+v, %+v", err, s, l.history())
		}
	}
}

// in waits for a state of its loops.
func (l looped) in(state timeloop.State) {
	l.t.Helper()
	end := time.Now().Add(loopPatience)
	for l.state().State != state {
		if time.Now().After(end) {
			l.t.Fatalf("not in %s: %+v, %+v", state, l.state(), l.history())
		}
		time.Sleep(glance)
	}
}

// notLearned: whoever is inside has taught the policy nothing.
func (l looped) notLearned() policy.Policy {
	l.t.Helper()
	p := l.policy(l.state().Workload)
	for _, name := range []string{"execve", "execveat", "ptrace", "unshare"} {
		nr, _ := syscalls.Number(syscalls.X86_64, name)
		if all := p.ABIs[syscalls.X86_64].All(); all.Has(nr) {
			l.t.Errorf("%s is in the policy", name)
		}
	}
	return p
}

// containersAre what the engine has, running or not.
func containersAre(t *testing.T, e *testbed.Env, want string) {
	t.Helper()
	eventually(t, "the engine has "+want, func() (bool, string) {
		have := bedtest.Podman(t, e, "ps", "--all", "--format", "{{.Names}} {{.State}}")
		return strings.TrimSpace(have) == want, have
	})
}

// TestLoopFromEmpty: a service comes to serve from an empty policy without an operator, and whoever attacks it gets nothing:
// neither a shell, nor a call into the policy, nor the service out of production for long.
func TestLoopFromEmpty(t *testing.T) {
	t.Parallel()
	e, d := supervisedBed(t, "")
	twin, err := vulnd()
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.Load(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	l := beginLoops(t, e, d, twin)
	took := l.converge()
	loops := len(l.history())
	t.Logf("from an empty policy to serving: %d loops, %s", loops, took.Round(glance))
	for _, r := range l.history() {
		t.Logf("loop %d: %s: %s after %s, learned %d (%s); lost: %s", r.ID, r.Cause, r.Verdict, r.OracleFor.Round(glance), len(r.Calls), r.Why, r.Lost)
	}
	learned := service(l.notLearned(), syscalls.X86_64)
	t.Logf("%d calls learned: %v", learned.Len(), learned.Names(syscalls.X86_64))

	for _, x := range twin.Exploits() {
		began := time.Now()
		shell, err := x.Run(t.Context(), l.target)
		if shell {
			t.Errorf("%s: it got a shell", x.Name)
		}
		t.Logf("%s: %v", x.Name, err)
		eventually(t, "production answers again", func() (bool, string) {
			err := l.use()
			return err == nil && l.state().State == timeloop.Production, fmt.Sprint(err, l.state().State)
		})
		t.Logf("%s: the service answers after %s", x.Name, time.Since(began).Round(glance))
	}
	l.notLearned()
	containersAre(t, e, "web running")
	bedtest.Podman(t, e, "stop", "--time", "10", "web")
	if s := l.state(); s.State != timeloop.Production {
		t.Errorf("a stop began a loop: %+v", s)
	}
}

// TestLoopAgentKilled at each state of a loop: the next agent brings production back, and what was learned stays.
func TestLoopAgentKilled(t *testing.T) {
	t.Parallel()
	for _, at := range []timeloop.State{timeloop.ToOracle, timeloop.InOracle, timeloop.ToProduction} {
		t.Run(string(at), func(t *testing.T) {
			t.Parallel()
			e, d := supervisedBed(t, "")
			flags := []string{"--podman", e.Socket(), "--hooks-dir", e.HooksDir()}
			twin, err := vulnd()
			if err != nil {
				t.Fatal(err)
			}
			if err := twin.Load(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			l := beginLoops(t, e, d, twin)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { // clients do not stop because an agent dies
				defer close(done)
				for ctx.Err() == nil {
					_ = l.target.Ask(ctx, twin.Talk())
					time.Sleep(glance)
				}
			}()
			defer func() { cancel(); <-done }()
			l.in(at)
			d.end(unix.SIGKILL)
			time.Sleep(2 * time.Second) // whatever moves goes on without it
			d.start(flags...)
			l.daemon = d
			took := l.converge()
			t.Logf("killed in %s: converged %s later, %d loops", at, took.Round(glance), len(l.history()))
			l.notLearned()
			containersAre(t, e, "web running")
		})
	}
}
