// SPDX-License-Identifier: Apache-2.0

package units

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"golang.org/x/sys/unix"
)

// host is a container in which systemd is init, with the root of this machine below it.
type host struct {
	t    *testing.T
	env  *testbed.Env
	name string
	dir  string // /t in the container: logs, this binary
}

// hidden are directories of this machine that the container has empty ones instead of.
var hidden = []string{"tmp", "run", "var/tmp", "var/log", "home", "root"}

// boot a systemd with these units in /etc/systemd/system, and nothing of this machine's there. Not privileged: what its
// systemd would do to the kernel (sysctl, binfmt) is none of a test's business.
func boot(t *testing.T, files ...File) *host {
	t.Helper()
	return bootWith(t, files)
}

func bootWith(t *testing.T, files []File, options ...string) *host {
	t.Helper()
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "systemctl", "nsenter")
	h := &host{t: t, name: "sd", dir: filepath.Join(t.TempDir(), "t")}
	env, err := testbed.Up(t.Context(), filepath.Join(t.TempDir(), "bed"), "")
	if err != nil {
		t.Fatal(err)
	}
	h.env = env
	t.Cleanup(func() {
		if _, err := env.Run(context.Background(), "rm", "--force", "--time=0", h.name); err != nil {
			t.Error(err)
		}
		if err := env.Down(); err != nil {
			t.Error(err)
		}
	})
	units := filepath.Join(t.TempDir(), "units")
	for _, dir := range []string{h.dir, units} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(units, f.Name), []byte(f.Text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "prog"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"run", "--detach", "--name=" + h.name, "--systemd=always", "--network=none",
		"--volume=" + units + ":/etc/systemd/system:ro", "--volume=" + h.dir + ":/t"}, options...)
	args = append(args, "--rootfs", h.root(), "/lib/systemd/systemd", "--unit=basic.target", "--show-status=no")
	if _, err = env.Run(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
	h.until("running", "systemctl", "is-system-running")
	return h
}

// root is an overlay above this machine's, mounted where Podman runs: it goes with the Env.
func (h *host) root() string {
	h.t.Helper()
	base := h.t.TempDir()
	upper := filepath.Join(base, "upper")
	for _, dir := range hidden {
		path := filepath.Join(upper, dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			h.t.Fatal(err)
		}
		// What overlayfs marks a directory with that hides the one below it (Documentation/filesystems/overlayfs.rst).
		if err := unix.Setxattr(path, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			h.t.Fatal(err)
		}
	}
	script := `mkdir "$1/work" "$1/root" && mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"`
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(h.env.Holder.PID), "--mount", "--", "sh", "-c", script, "sh", base)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("mount an overlay: %v: %s", err, out)
	}
	return filepath.Join(base, "root")
}

// try a command in the container.
func (h *host) try(command ...string) (string, error) {
	return h.env.Run(h.t.Context(), append([]string{"exec", h.name}, command...)...)
}

func (h *host) run(command ...string) string {
	h.t.Helper()
	out, err := h.try(command...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// until a command prints this. The test's time is the limit.
func (h *host) until(want string, command ...string) {
	h.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		// is-active and is-system-running print what they say with an exit status.
		var out strings.Builder
		cmd := h.env.Command(h.t.Context(), append([]string{"exec", h.name}, command...)...)
		cmd.Stdout = &out
		err := cmd.Run()
		got := strings.TrimSpace(out.String())
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			journal, _ := h.try("journalctl", "--no-pager", "--lines=60")
			h.t.Fatalf("%v: %q, %v; want %q\n%s", command, got, err, want, journal)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (h *host) is(unit, state string) {
	h.t.Helper()
	h.until(state, "systemctl", "is-active", unit)
}

// line of a service's log.
type line struct {
	name, what string
	at         int64
}

func (h *host) log(pair string) (lines []line) {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, pair, "log"))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	for row := range strings.Lines(string(text)) {
		var l line
		if _, err := fmt.Sscan(row, &l.name, &l.what, &l.at); err != nil {
			h.t.Fatalf("%q: %v", row, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// alternate checks that the two never ran at once, and returns who started, in order.
func (h *host) alternate(pair string) (starts []string) {
	h.t.Helper()
	var last line
	for _, l := range h.log(pair) {
		switch {
		case l.what == "overlap":
			h.t.Errorf("%s started while the other ran, at %d", l.name, l.at)
		case l.at < last.at:
			h.t.Errorf("%v is noted after %v", l, last)
		case l.what == "start":
			starts = append(starts, l.name)
		}
		last = l
	}
	return starts
}

// serves waits until a side of a pair has noted that it began: it is active when it was executed, which is before.
func (h *host) serves(pair, side string) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		lines := h.log(pair)
		if n := len(lines); n > 0 && lines[n-1].name == side && lines[n-1].what == "start" {
			return
		}
		if time.Now().After(deadline) {
			journal, _ := h.try("journalctl", "--no-pager", "--lines=60")
			h.t.Fatalf("%s of %s does not serve: %v\n%s", side, pair, lines, journal)
		}
	}
}

// pairOf test programs; change is for what is not the usual.
func pairOf(t *testing.T, name string, change func(*Pair)) []File {
	t.Helper()
	program := func(side string) Service {
		return Service{Start: []string{"/t/prog", "serve", side, "/t/" + name}, StartWithin: 5 * time.Second, StopWithin: 5 * time.Second}
	}
	p := Pair{Name: name, Production: program("production"), Oracle: program("oracle")}
	change(&p)
	files, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// However an oracle ends, production is back, and the two never run at once.
func TestProductionComesBack(t *testing.T) {
	var files []File
	for name, change := range map[string]func(*Pair){
		"web":     func(*Pair) {},
		"timed":   func(p *Pair) { p.Longest = time.Second },
		"missing": func(p *Pair) { p.Oracle.Start = []string{"/nowhere/at-all"} },
		"late":    func(p *Pair) { p.Oracle.Notify, p.Oracle.StartWithin = true, time.Second },
		"stubborn": func(p *Pair) {
			p.Production.Start = append(p.Production.Start, "stays")
			p.Production.StopWithin = time.Second
		},
		"hangs": func(p *Pair) {
			p.Oracle.After, p.Oracle.StopWithin = [][]string{{"/bin/sleep", "infinity"}}, time.Second
		},
	} {
		files = append(files, pairOf(t, name, change)...)
	}
	h := boot(t, files...)
	for _, tt := range []struct {
		pair, name string
		end        func() // of the oracle
		unserved   bool   // the oracle never runs
	}{
		{"web", "it aborts", func() { h.run("systemctl", "kill", "--signal=USR1", "web-oracle") }, false},
		{"web", "it is killed", func() { h.run("systemctl", "kill", "--signal=KILL", "web-oracle") }, false},
		{"web", "it ends in good order", func() { h.run("systemctl", "kill", "--signal=USR2", "web-oracle") }, false},
		{"web", "somebody stops it", func() { h.run("systemctl", "stop", "web-oracle") }, false},
		{"web", "production is started", func() { h.run("systemctl", "start", "web") }, false},
		{"web", "it is switched", func() { h.run("/t/prog", "switch", "web-oracle.service", "web.service") }, false},
		{"timed", "its time is over", func() {}, false},
		{"missing", "there is no oracle", nil, true},
		{"late", "it never says that it is ready", nil, false},
		{"stubborn", "production does not want to end", func() { h.run("systemctl", "kill", "--signal=USR1", "stubborn-oracle") }, false},
		{"hangs", "what cleans up hangs", func() { h.run("systemctl", "kill", "--signal=USR1", "hangs-oracle") }, false},
	} {
		t.Run(tt.pair+": "+tt.name, func(t *testing.T) {
			h.t = t
			h.run("systemctl", "start", tt.pair)
			h.serves(tt.pair, "production")
			before := len(h.alternate(tt.pair))
			_, err := h.try("systemctl", "start", tt.pair+"-oracle")
			if fails := tt.end == nil; (err != nil) != fails {
				t.Errorf("start the oracle: %v, want an error: %v", err, fails)
			}
			if tt.end != nil && tt.pair != "timed" {
				h.serves(tt.pair, "oracle")
				if state, _ := h.try("systemctl", "is-active", tt.pair); state == "active" {
					t.Error("production runs beside its oracle")
				}
			}
			if tt.end != nil {
				tt.end()
			}
			h.is(tt.pair, "active")
			want := []string{"oracle", "production"}
			if tt.unserved {
				want = want[1:]
			}
			h.serves(tt.pair, "production")
			if diff := cmp.Diff(want, h.alternate(tt.pair)[before:]); diff != "" {
				t.Errorf("who started (-want +got):\n%s", diff)
			}
			if state, _ := h.try("systemctl", "is-active", tt.pair+"-oracle"); state == "active" {
				t.Error("the oracle runs on")
			}
		})
	}
}

// Loops that follow each other closely lock nobody out: not production, and not with a start limit on the oracle either,
// which systemd would meet with both of them stopped.
func TestManyLoops(t *testing.T) {
	h := boot(t, pairOf(t, "web", func(*Pair) {})...)
	h.run("systemctl", "start", "web")
	for range 8 { // systemd's own limit is 5 in 10 seconds
		h.run("systemctl", "start", "web-oracle")
		h.serves("web", "oracle")
		h.run("systemctl", "kill", "--signal=USR1", "web-oracle")
		h.is("web", "active")
		h.serves("web", "production")
	}
	if starts := h.alternate("web"); len(starts) < 16 {
		t.Errorf("%d starts: %v", len(starts), starts)
	}
}

// A production that fails is started again, and not while its oracle runs.
func TestProductionIsRestarted(t *testing.T) {
	h := boot(t, pairOf(t, "web", func(*Pair) {})...)
	h.run("systemctl", "start", "web")
	h.serves("web", "production")
	h.run("systemctl", "kill", "--signal=KILL", "web")
	h.until("2", "sh", "-c", "grep -c start /t/web/log")
	h.is("web", "active")
	// Killed again, and replaced before it is restarted: that takes longer now than any machine needs for it.
	h.run("sh", "-c", `cd /run/systemd/system && mkdir web.service.d && printf '[Service]\nRestartSec=10min\n' >web.service.d/later.conf && systemctl daemon-reload`)
	h.run("systemctl", "kill", "--signal=KILL", "web")
	h.until("auto-restart", "systemctl", "show", "--property=SubState", "--value", "web")
	h.run("systemctl", "start", "web-oracle")
	h.serves("web", "oracle")
	h.is("web-oracle", "active")
	h.until("dead", "systemctl", "show", "--property=SubState", "--value", "web") // it waits no more
	if diff := cmp.Diff([]string{"production", "production", "oracle"}, h.alternate("web")); diff != "" {
		t.Errorf("who started (-want +got):\n%s", diff)
	}
}

// When the host shuts down nothing comes back.
func TestShutdown(t *testing.T) {
	for _, side := range []string{"web", "web-oracle"} {
		t.Run(side, func(t *testing.T) {
			h := boot(t, pairOf(t, "web", func(*Pair) {})...)
			h.run("systemctl", "start", "web")
			h.serves("web", "production")
			if side != "web" {
				h.run("systemctl", "start", side)
				h.serves("web", "oracle")
			}
			before := h.alternate("web")
			if _, err := h.try("systemctl", "poweroff"); err != nil {
				t.Log(err) // the connection may end first
			}
			if _, err := h.env.Run(t.Context(), "wait", h.name); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, h.alternate("web")); diff != "" {
				t.Errorf("who started (-want +got):\n%s", diff)
			}
			lines := h.log("web")
			if last := lines[len(lines)-1]; last.what != "end" {
				t.Errorf("the last line is %v, want an end in good order", last)
			}
		})
	}
}

// Switch goes there and back, and refuses what is no pair.
func TestSwitch(t *testing.T) {
	loose := File{"loose.service", "[Service]\nExecStart=/bin/sleep infinity\n"}
	unordered := File{"loose-oracle.service", "[Unit]\nConflicts=loose.service\n[Service]\nExecStart=/bin/sleep infinity\n"}
	files := pairOf(t, "web", func(*Pair) {})
	files = append(files, pairOf(t, "gone", func(p *Pair) { p.Oracle.Start = []string{"/nowhere/at-all"} })...)
	h := boot(t, append(files, loose, unordered)...)
	for _, tt := range []struct{ from, to, want string }{
		{"web-oracle", "web", ""},
		{"web", "web-oracle", ""},
		{"web", "web-oracle", ""}, // again
		{"web-oracle", "web", ""},
		{"loose", "loose-oracle", "do not exclude each other"},
		{"web", "loose", "do not exclude each other"},
		{"web", "nothing", "not-found"},
		{"gone", "gone-oracle", "switch to gone-oracle.service: systemctl start"},
		{"web", "--now", "no unit of a service"},
	} {
		_, err := h.try("/t/prog", "switch", tt.from+".service", tt.to+".service")
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("from %s to %s: %v, want an error with %q", tt.from, tt.to, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("from %s to %s: %v", tt.from, tt.to, err)
		}
		h.is(tt.to, "active")
		h.serves("web", map[string]string{"web": "production", "web-oracle": "oracle"}[tt.to])
	}
	h.is("gone", "active")
	if diff := cmp.Diff([]string{"production", "oracle", "production"}, h.alternate("web")); diff != "" {
		t.Errorf("who started (-want +got):\n%s", diff)
	}
}

// systemd gives a program the very words that it was to get.
func TestWordsArrive(t *testing.T) {
	want := append([]string{""}, nasty...)
	p := Pair{Name: "words", Oracle: Service{Start: []string{"/bin/true"}}, Production: Service{
		Start: append([]string{"/t/prog", "words", "/t/words.json"}, want...), Restart: "no",
		Environment: map[string]string{"WORD": strings.Join(nasty, " ")},
	}}
	files, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	h := boot(t, files...)
	h.run("systemctl", "start", "words")
	h.is("words", "inactive")
	text, err := os.ReadFile(filepath.Join(h.dir, "words.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Words []string `json:"words"`
		Env   string   `json:"env"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Words); diff != "" {
		t.Errorf("words (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(strings.Join(nasty, " "), got.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}
