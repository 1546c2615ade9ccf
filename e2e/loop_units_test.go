// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	timeloop "github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// manager is a systemd of the test's own. A user's manager does with units what the system's does, and need not be the first
// process of its pid namespace: the agent and the kernel have to mean the same process by a number.
type manager struct {
	t    *testing.T
	dir  string
	path string // PATH, with a systemctl that asks this one
}

// inManager makes what systemd wants to see before it runs without being init: that it was booted, and cgroup v2 alone. In the root
// cgroup it would move every process of this machine, so it is not started there.
const inManager = `set -e
v2=$1 group=$2
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
mkdir "$v2/$group"
echo 0 > "$v2/$group/cgroup.procs"
grep -qx "0::/$group" /proc/self/cgroup
[ "$v2" = /sys/fs/cgroup ] || mount --bind "$v2" /sys/fs/cgroup
shift 2
exec "$@"`

// upManager starts a systemd.
func upManager(t *testing.T) *manager {
	t.Helper()
	testenv.NeedTool(t, "systemctl", "unshare")
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		t.Fatal(err)
	}
	v2 := cgroup2(t)
	dir, err := os.MkdirTemp("", "sd") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, dir: dir, path: filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
	for _, d := range []string{"bin", "run", "conf/systemd/user"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("#!/bin/sh\nXDG_RUNTIME_DIR=%s/run exec %s --user \"$@\"\n", dir, systemctl)
	if err := os.WriteFile(filepath.Join(dir, "bin", "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	group := "whittle-" + filepath.Base(dir)
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", inManager, "sh", v2, group,
		"env", "-i", "HOME="+dir, "XDG_RUNTIME_DIR="+dir+"/run", "XDG_CONFIG_HOME="+dir+"/conf", "PATH="+m.path, "SYSTEMD_LOG_TARGET=console",
		"/lib/systemd/systemd", "--user", "--unit=basic.target")
	log := &output{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // it stops its units
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("systemd's log:\n%s", log)
		}
		for _, err := range []error{removeGroup(filepath.Join(v2, group)), os.RemoveAll(dir)} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	eventually(t, "systemd is up", func() (bool, string) {
		// Not is-system-running: whether this machine was booted by systemd it would see from here.
		out, err := exec.Command(m.file("systemctl"), "is-active", "basic.target").CombinedOutput()
		return err == nil, string(out) + log.String()
	})
	m.run("set-environment", "PATH="+m.path)
	return m
}

// cgroup2 is where its file system is mounted.
func cgroup2(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		mount, kind, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); len(fields) > 4 && strings.HasPrefix(kind, "cgroup2 ") {
			return fields[4]
		}
	}
	t.Fatal("cgroup v2 is mounted nowhere")
	return ""
}

// removeGroup with those below it.
func removeGroup(dir string) error {
	var dirs []string
	_ = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, name)
		}
		return nil
	})
	for _, name := range slices.Backward(dirs) {
		if err := unix.Rmdir(name); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

// file in the directory of programs.
func (m *manager) file(name string) string { return filepath.Join(m.dir, "bin", name) }

func (m *manager) run(args ...string) string {
	m.t.Helper()
	out, err := exec.Command(m.file("systemctl"), args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("systemctl %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// state of a unit.
func (m *manager) state(unit string) string {
	m.t.Helper()
	return m.run("show", "--property=ActiveState", "--value", unit)
}

// TestLoopUnits: the same where systemd is who restarts. The agent has it switch between the two units that whittle oracle unit
// writes; each of them makes its container anew. It is killed while one takes the other's place, and while the oracle serves.
func TestLoopUnits(t *testing.T) {
	t.Parallel()
	m := upManager(t)
	l, e := unitBed(t, m)
	first := bedtest.Podman(t, e, "inspect", "--format", "{{.Id}}", "web")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // clients do not stop because an agent dies
		defer close(done)
		for ctx.Err() == nil {
			for _, talk := range l.twin.Honest() {
				_ = l.target.Ask(ctx, talk)
			}
			time.Sleep(glance)
		}
	}()
	for _, at := range []timeloop.State{timeloop.ToOracle, timeloop.InOracle} {
		l.whittle("oracle", "set", "web", "--image", l.twin.Oracle.Name, "--quiet", "5s") // what was tried in vain is tried again
		l.in(at)
		l.end(unix.SIGKILL)
		t.Logf("killed in %s: production is %s, its oracle %s", at, m.state("web"), m.state("web-oracle"))
		time.Sleep(2 * time.Second) // systemd goes on without it
		l.start("--podman", e.Socket(), "--hooks-dir", e.HooksDir())
	}
	l.in(timeloop.Production)
	cancel()
	<-done
	l.whittle("oracle", "set", "web", "--image", l.twin.Oracle.Name, "--quiet", "5s")
	took := l.converge(l.twin.Honest()...)
	l.tell()
	t.Logf("converged %s later", took.Round(glance))
	if learned := l.verdicts(timeloop.VerdictLearned); learned == 0 {
		t.Errorf("no loop has learned anything: %+v", l.history())
	}
	for _, r := range l.history() {
		if !r.Served.IsZero() && !strings.Contains(r.Lost, "who connected while neither served waited") {
			t.Errorf("loop %d lost %q", r.ID, r.Lost)
		}
	}
	l.taughtNothing()
	productionUnit(t, m, e)
	l.gone(l.steering)
	if now := bedtest.Podman(t, e, "inspect", "--format", "{{.Id}}", "web"); now == first {
		t.Error("production's container is the first one still")
	}

	x := l.twin.Exploits()[0]
	before := len(l.history())
	for end := time.Now().Add(loopPatience); l.attack(before) == nil; time.Sleep(glance) {
		if shell, _ := x.Run(t.Context(), l.target); shell {
			t.Errorf("%s: it got a shell in %s", x.Name, l.state().State)
		}
		if time.Now().After(end) {
			t.Fatalf("%s: no oracle saw it: %+v, %+v", x.Name, l.state(), l.history())
		}
	}
	l.converge(l.twin.Talk())
	r := l.attack(before)
	t.Logf("%s: %s, caused by %s; not learned: %v; moved: %s", x.Name, r.Why, r.Cause, r.Dropped, r.Lost)
	if text := r.Report.Text + r.Report.Summary; !strings.Contains(text, strings.TrimPrefix(x.Reported, "AddressSanitizer: ")) {
		t.Errorf("the report is %s", text)
	}
	l.taughtNothing()
	productionUnit(t, m, e)
	l.byHand(m, e)
}

// byHand ends the oracle: the loop ends with it, and the agent starts nothing that somebody has stopped. A unit whose oracle is
// another than the one that is set begins no loop.
func (l looped) byHand(m *manager, e *testbed.Env) {
	l.t.Helper()
	attack := func() { _, _ = l.twin.Exploits()[0].Run(l.t.Context(), l.target) }
	visit := func() {
		l.t.Helper()
		l.whittle("oracle", "set", "web", "--image", l.twin.Oracle.Name, "--quiet", "60s")
		eventually(l.t, "the oracle serves", func() (bool, string) {
			if l.state().State == timeloop.Production {
				attack()
			}
			return l.state().State == timeloop.InOracle, fmt.Sprintf("%+v %+v", l.state(), l.history())
		})
	}
	visit()
	m.run("start", "web")
	l.in(timeloop.Production)
	productionUnit(l.t, m, e)
	all := l.history()
	if r := all[len(all)-1]; r.Verdict != timeloop.VerdictFailed || !strings.Contains(r.Why, "the oracle's unit has ended") {
		l.t.Errorf("the record is %+v", r)
	}
	visit()
	m.run("stop", "web-oracle")
	m.run("stop", "web")
	l.in(timeloop.Production)
	if is := m.state("web"); is != "inactive" {
		l.t.Errorf("production is %s: somebody has stopped it", is)
	}
	m.run("start", "web")
	l.whittle("oracle", "set", "web", "--image", l.twin.Oracle.Name, "--env", "ANOTHER=1", "--quiet", "5s")
	before := len(l.history())
	eventually(l.t, "a loop fails", func() (bool, string) {
		attack()
		all = l.history()
		return len(all) > before && !all[before].Ended.IsZero(), fmt.Sprintf("%+v", all)
	})
	l.converge(l.twin.Talk()) // each attack has ended the service, which its unit starts again
	if r := all[before]; r.Verdict != timeloop.VerdictFailed || !strings.Contains(r.Why, "was not written for the oracle that is set now") {
		l.t.Errorf("the record is %+v", r)
	}
	productionUnit(l.t, m, e)
}

// unitBed is a vulnerable service that systemd runs, under a policy that knows its boot.
func unitBed(t *testing.T, m *manager) (looped, *testbed.Env) {
	t.Helper()
	e, d := supervisedBed(t, "")
	d.end(unix.SIGTERM)
	d.bin = m.file("whittle")
	if err := os.WriteFile(d.bin, fmt.Appendf(nil, "#!/bin/sh\nPATH=%s exec %s \"$@\"\n", m.path, binary(t)), 0o755); err != nil {
		t.Fatal(err)
	}
	d.start("--podman", e.Socket(), "--hooks-dir", e.HooksDir())
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
	l := looped{d, twin, twin.Target(port)}
	bedtest.Podman(t, e, append([]string{"run", "--detach", "--network", "host", "--name", "web", twin.Production.Name}, twin.Command(port)...)...)
	t.Cleanup(func() {
		m.run("stop", "web-oracle", "web")
		for _, name := range []string{"web", "web-oracle"} { // Podman leaves them
			if err := os.Remove("/run/" + name + ".service.ctr-id"); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	eventually(t, "it serves", func() (bool, string) {
		err := l.use(twin.Talk())
		return err == nil, fmt.Sprint(err)
	})
	d.whittle("oracle", "set", "web", "--image", twin.Oracle.Name, "--quiet", "5s")
	units := filepath.Join(m.dir, "conf", "systemd", "user")
	d.whittle("oracle", "unit", "web", "--podman", e.Socket(), "--out", units)
	for _, name := range []string{"web.service", "web-oracle.service"} {
		text, err := os.ReadFile(filepath.Join(units, name))
		if err != nil {
			t.Fatal(err)
		}
		// The units are for a machine whose Podman it is, and not a test's.
		line, _, _ := strings.Cut(string(text[strings.Index(string(text), "ExecStart=")+len("ExecStart="):]), " ")
		if err := os.WriteFile(filepath.Join(units, name), []byte(strings.ReplaceAll(string(text), line+" ", e.Podman()+" ")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bedtest.Podman(t, e, "rm", "--force", "web")
	d.forgotten()
	d.whittle("oracle", "set", l.state().Workload, "--image", twin.Oracle.Name, "--start", "--quiet", "5s")
	m.run("daemon-reload")
	m.run("start", "web")
	return l, e
}

// taughtNothing: whoever is inside had no oracle teach the policy what attacks are for. The service's own start is in it.
func (l looped) taughtNothing() {
	l.t.Helper()
	calls := l.policy(l.state().Workload).ABIs[syscalls.X86_64]
	for _, name := range []string{"execve", "execveat", "ptrace", "unshare"} {
		nr, _ := syscalls.Number(syscalls.X86_64, name)
		if run := calls.Phases[policy.Run]; run.Has(nr) || strings.Contains(calls.Evidence[nr].Reason, "time loop") {
			l.t.Errorf("%s is in the policy: %+v", name, calls.Evidence[nr])
		}
	}
}

// verdicts of this kind.
func (l looped) verdicts(v timeloop.Verdict) (n int) {
	l.t.Helper()
	for _, r := range l.history() {
		if r.Verdict == v {
			n++
		}
	}
	return n
}

// productionUnit runs, and its container is the only one.
func productionUnit(t *testing.T, m *manager, e *testbed.Env) {
	t.Helper()
	productionOnly(t, e, "running")
	if is, oracle := m.state("web"), m.state("web-oracle"); is != "active" || oracle == "active" {
		t.Errorf("production is %s, its oracle %s", is, oracle)
	}
}
