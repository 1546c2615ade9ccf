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
	"github.com/whittle-sec/whittle/internal/testenv"
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

// loopBed starts the service: its container is created, it is given an oracle, and started.
func loopBed(t *testing.T) (looped, *testbed.Env) {
	t.Helper()
	return loopBedWith(t, func(twin twins.Twin, port int) []string {
		return append([]string{twin.Production.Name}, twin.Command(port)...)
	})
}

func loopBedWith(t *testing.T, image func(twin twins.Twin, port int) []string) (looped, *testbed.Env) {
	t.Helper()
	e, d := supervisedBed(t, "")
	twin, err := vulnd()
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.Load(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	port := 0
	if _, err := fmt.Sscan(freePort(t), &port); err != nil {
		t.Fatal(err)
	}
	bedtest.Podman(t, e, append([]string{"create", "--network", "host", "--restart", "always", "--name", "web"}, image(twin, port)...)...)
	d.whittle("oracle", "set", "web", "--image", twin.Oracle.Name, "--start", "--quiet", "5s")
	bedtest.Podman(t, e, "start", "web")
	return looped{d, twin, twin.Target(port)}, e
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

// use it as a client does.
func (l looped) use(talks ...clients.Talk) error {
	for i, talk := range talks {
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
func (l looped) converge(talks ...clients.Talk) time.Duration {
	l.t.Helper()
	began := time.Now()
	for last := ""; ; time.Sleep(glance) {
		err := l.use(talks...)
		s := l.state()
		if err == nil && s.State == timeloop.Production && l.use(talks...) == nil && l.state().State == timeloop.Production {
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

// productionOnly: production's container is there.
func productionOnly(t *testing.T, e *testbed.Env, state string) {
	t.Helper()
	eventually(t, "there is production only, and it is "+state, func() (bool, string) {
		names := strings.TrimSpace(bedtest.Podman(t, e, "ps", "--all", "--format", "{{.Names}}"))
		is := strings.TrimSpace(bedtest.Podman(t, e, "inspect", "--format", "{{.State.Status}}", "web"))
		return names == "web" && is == state, names + " " + is
	})
}

// tell what its loops were.
func (l looped) tell() {
	l.t.Helper()
	for _, r := range l.history() {
		l.t.Logf("loop %d: %s: %s after %s, learned %d (%s); moved: %s", r.ID, r.Cause, r.Verdict, r.OracleFor.Round(glance), len(r.Calls), r.Why, r.Lost)
	}
}

// TestLoopFromEmpty: a service comes to serve from an empty policy without an operator, and whoever attacks it gets nothing:
// neither a shell, nor a call into the policy, nor the service out of production for long.
func TestLoopFromEmpty(t *testing.T) {
	t.Parallel()
	l, e := loopBed(t)
	took := l.converge(l.twin.Talk())
	l.tell()
	learned := service(l.notLearned(), syscalls.X86_64)
	t.Logf("from an empty policy to serving: %d loops, %s; %d calls: %v", len(l.history()), took.Round(glance), learned.Len(), learned.Names(syscalls.X86_64))

	for _, x := range l.twin.Exploits() {
		began := time.Now()
		shell, err := x.Run(t.Context(), l.target)
		if shell {
			t.Errorf("%s in production: it got a shell", x.Name)
		}
		took := l.converge(l.twin.Talk())
		t.Logf("%s in production: %v; the service answers after %s, in %s", x.Name, err, time.Since(began).Round(glance), took.Round(glance))
	}
	before := len(l.history())
	took = l.converge(l.twin.Honest()...)
	t.Logf("from then on to everything it is asked for: %d loops, %s", len(l.history())-before, took.Round(glance))
	l.tell()
	l.notLearned()
	productionOnly(t, e, "running")
	bedtest.Podman(t, e, "stop", "--time", "10", "web")
	if s := l.state(); s.State != timeloop.Production {
		t.Errorf("a stop began a loop: %+v", s)
	}
	productionOnly(t, e, "exited")
}

// attacks that the oracle has reported.
func (l looped) attacks() (all []api.LoopRecord) {
	l.t.Helper()
	for _, r := range l.history() {
		if r.Verdict == timeloop.VerdictAttack && !r.Ended.IsZero() {
			all = append(all, r)
		}
	}
	return all
}

// TestLoopAttacked: an exploit that comes while the oracle serves is reported, and production is back.
func TestLoopAttacked(t *testing.T) {
	t.Parallel()
	l, e := loopBed(t)
	l.converge(l.twin.Talk())
	for i, x := range l.twin.Exploits() {
		if i > 0 { // what an attack has asked for begins no loop for a while, but for another oracle
			l.whittle("oracle", "set", "web", "--image", l.twin.Oracle.Name, "--quiet", "6s")
		}
		eventually(t, "the oracle serves", func() (bool, string) {
			for _, talk := range l.twin.Honest() { // until one of them begins a loop, with a call that was not asked for yet
				if l.state().State == timeloop.Production {
					_ = l.use(talk)
				}
			}
			err := l.use(l.twin.Talk())
			return err == nil && l.state().State == timeloop.InOracle, fmt.Sprint(l.state().State, err)
		})
		began := time.Now()
		if shell, _ := x.Run(t.Context(), l.target); shell {
			t.Errorf("%s: it got a shell in the oracle", x.Name)
		}
		l.in(timeloop.Production)
		took := time.Since(began)
		all := l.attacks()
		if len(all) != i+1 || all[i].Report == nil {
			t.Fatalf("%s: the records are %+v", x.Name, l.history())
		}
		t.Logf("%s: production is back after %s: %s; not learned: %v", x.Name, took.Round(glance), all[i].Why, all[i].Dropped)
		if text := all[i].Report.Text + all[i].Report.Summary; !strings.Contains(text, strings.TrimPrefix(x.Reported, "AddressSanitizer: ")) {
			t.Errorf("%s: the report is %s", x.Name, text)
		}
		l.notLearned()
	}
	l.converge(l.twin.Talk())
	productionOnly(t, e, "running")
}

// TestLoopExploited: an exploit in production makes calls that the service makes anyway, and then one that starts a program. That
// begins a loop; repeated, the attack makes the oracle abort. No shell was ever there, nothing of it is learned, and the next
// time it is refused without a loop.
func TestLoopExploited(t *testing.T) {
	t.Parallel()
	l, e := loopBed(t)
	l.converge(l.twin.Honest()...)
	l.notLearned()
	for i, x := range l.twin.Exploits() {
		if i > 0 { // what an attack has asked for begins no loop for a while, but for another oracle
			l.whittle("oracle", "set", "web", "--image", l.twin.Oracle.Name, "--quiet", "6s")
			l.converge(l.twin.Talk())
		}
		before, began := len(l.history()), time.Now()
		others := clients.Start(t.Context(), l.target, l.twin.Talk(), clients.Load{Workers: 2, PerConnection: 1})
		attack := func() {
			t.Helper()
			if shell, _ := x.Run(t.Context(), l.target); shell {
				t.Errorf("%s: it got a shell in %s", x.Name, l.state().State)
			}
		}
		attack()
		l.in(timeloop.InOracle)
		for reported := false; !reported; reported = len(l.history()) > before && l.history()[before].Report != nil {
			if time.Since(began) > loopPatience {
				t.Fatalf("%s: no oracle saw it: %+v, %+v", x.Name, l.state(), l.history())
			}
			attack()
			time.Sleep(glance)
		}
		l.in(timeloop.Production)
		l.converge(l.twin.Talk())
		stats := others.Stop()
		took, record := time.Since(began), l.attack(before)
		t.Logf("%s: the others: %s", x.Name, stats)
		if stats.Refused > 0 {
			t.Errorf("%s: connections of others were refused: %s; moved: %s", x.Name, stats, record.Lost)
		}
		t.Logf("%s: %s, caused by %s; production answers again %s after the attack began; not learned: %v", x.Name, record.Why, record.Cause,
			took.Round(glance), record.Dropped)
		if record.CauseKey.Call.String() != "execve" {
			t.Errorf("%s: the loop is for %s", x.Name, record.Cause)
		}
		if text := record.Report.Text + record.Report.Summary; !strings.Contains(text, strings.TrimPrefix(x.Reported, "AddressSanitizer: ")) {
			t.Errorf("%s: the report is %s", x.Name, text)
		}
		loops := len(l.history())
		attack()
		l.converge(l.twin.Talk())
		if now := l.history(); len(now) != loops {
			t.Errorf("%s: another loop for what was an attack: %+v", x.Name, now[len(now)-1])
		}
		l.notLearned()
	}
	l.tell()
	productionOnly(t, e, "running")
}

// TestLoopStartsPrograms: what a service really starts, its oracle teaches it: here a shell, which executes the service.
func TestLoopStartsPrograms(t *testing.T) {
	t.Parallel()
	l, e := loopBedWith(t, func(twin twins.Twin, port int) []string {
		return []string{"--entrypoint", "/bin/sh", twin.Production.Name, "-c", fmt.Sprintf("true & exec /usr/local/bin/vulnd %d", port)}
	})
	took := l.converge(l.twin.Talk())
	l.tell()
	p := l.policy(l.state().Workload)
	nr, _ := syscalls.Number(syscalls.X86_64, "execve")
	calls := p.ABIs[syscalls.X86_64]
	if boot := calls.Phases[policy.Boot]; !boot.Has(nr) || !strings.Contains(calls.Evidence[nr].Reason, "reached in time loop") {
		t.Errorf("execve is in %+v, because %+v", calls.Phases, calls.Evidence[nr])
	}
	if run := calls.Phases[policy.Run]; run.Has(nr) {
		t.Error("execve is learned for a phase in which nobody made it")
	}
	t.Logf("converged after %s, %d loops", took.Round(glance), len(l.history()))
	productionOnly(t, e, "running")
}

// TestLoopUnhardened: an oracle that was not built as somebody thought teaches nothing, whatever it reaches.
func TestLoopUnhardened(t *testing.T) {
	t.Parallel()
	l, e := loopBed(t)
	l.converge(l.twin.Talk())
	before := l.policy(l.state().Workload)
	l.whittle("oracle", "set", "web", "--image", l.twin.Production.Name, "--quiet", "30s")
	failed := func() *api.LoopRecord {
		for _, r := range l.history() {
			if r.Verdict == timeloop.VerdictFailed && !r.Ended.IsZero() {
				return &r
			}
		}
		return nil
	}
	for end := time.Now().Add(loopPatience); failed() == nil; time.Sleep(glance) {
		_ = l.use(l.twin.Honest()...) // with calls that are not in the policy yet
		if time.Now().After(end) {
			t.Fatalf("no loop fails: %+v, %+v", l.state(), l.history())
		}
	}
	r := failed()
	t.Logf("after %s: %s; not learned: %v", r.OracleFor.Round(glance), r.Why, r.Dropped)
	if !strings.Contains(r.Why, "nothing of a sanitizer is mapped") || len(r.Calls) > 0 || len(r.Dropped) == 0 {
		t.Errorf("the record is %+v", r)
	}
	after := l.policy(l.state().Workload)
	for _, name := range []string{"memfd_create", "sendfile", "statfs"} {
		nr, _ := syscalls.Number(syscalls.X86_64, name)
		was, is := before.ABIs[syscalls.X86_64].All(), after.ABIs[syscalls.X86_64].All()
		if is.Has(nr) && !was.Has(nr) {
			t.Errorf("%s was learned", name)
		}
	}
	productionOnly(t, e, "running")
}

// attack that the oracle has reported since there were so many loops, or nil.
func (l looped) attack(since int) *api.LoopRecord {
	l.t.Helper()
	for _, r := range l.history()[since:] {
		if r.Verdict == timeloop.VerdictAttack && !r.Ended.IsZero() && r.Report != nil {
			return &r
		}
	}
	return nil
}

// TestLoopAgentKilled at each state of a loop: the next agent brings production back, and what was learned stays.
func TestLoopAgentKilled(t *testing.T) {
	t.Parallel()
	for _, at := range []timeloop.State{timeloop.ToOracle, timeloop.InOracle, timeloop.ToProduction} {
		t.Run(string(at), func(t *testing.T) {
			t.Parallel()
			l, e := loopBed(t)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { // clients do not stop because an agent dies
				defer close(done)
				for ctx.Err() == nil {
					_ = l.target.Ask(ctx, l.twin.Talk())
					time.Sleep(glance)
				}
			}()
			defer func() { cancel(); <-done }()
			l.in(at)
			l.end(unix.SIGKILL)
			time.Sleep(2 * time.Second) // whatever moves goes on without it
			l.start("--podman", e.Socket(), "--hooks-dir", e.HooksDir())
			took := l.converge(l.twin.Honest()...)
			t.Logf("killed in %s: converged %s later, %d loops", at, took.Round(glance), len(l.history()))
			l.notLearned()
			productionOnly(t, e, "running")
			l.gone(l.steering)
		})
	}
}

// TestLoopDocker: the same with Docker, where whittle is the runtime.
func TestLoopDocker(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	testenv.NeedDocker(t)
	d := startAgent(t, noEngine...)
	bed := bedtest.UpDocker(t, map[string]any{
		"default-runtime": "whittle", "runtimes": map[string]any{"whittle": map[string]any{"path": wrapper(t, d.socket, "runc")}},
	})
	d.end(unix.SIGTERM)
	d.start("--podman", "", "--docker", bed.Socket())
	docker := func(args ...string) string {
		t.Helper()
		out, err := bed.Run(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	twin, err := vulnd()
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.LoadDocker(t.Context(), bed); err != nil {
		t.Fatal(err)
	}
	// Docker has a network of its own here, and the engine's daemon is in it.
	docker(append([]string{"create", "--network", "host", "--restart", "always", "--name", "web", twin.Production.Name}, twin.Command(twin.Port)...)...)
	d.whittle("oracle", "set", "web", "--image", twin.Oracle.Name, "--start", "--quiet", "5s")
	docker("start", "web")
	l := looped{d, twin, twin.Target(twin.Port)}
	l.target.NetNS = "/proc/" + docker("inspect", "--format", "{{.State.Pid}}", "web") + "/ns/net"
	ns, err := os.Open(l.target.NetNS) // which outlives the process
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	l.target.NetNS = fmt.Sprintf("/proc/self/fd/%d", ns.Fd())
	took := l.converge(twin.Talk())
	l.tell()
	t.Logf("from an empty policy to serving: %d loops, %s", len(l.history()), took.Round(glance))
	l.notLearned()
	if names := strings.TrimSpace(docker("ps", "--all", "--format", "{{.Names}} {{.State}}")); names != "web running" {
		t.Errorf("Docker has %s", names)
	}
}
