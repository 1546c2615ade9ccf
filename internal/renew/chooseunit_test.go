// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/units"
)

// managed by a unit, which makes it anew under a profile of Whittle's.
func managed(b *engine.Blueprint) {
	b.SystemdUnit, b.AutoRemove, b.Seccomp = "web.service", true, "/etc/whittle/web.json"
}

func TestChooseUnit(t *testing.T) {
	port := netip.MustParseAddrPort("0.0.0.0:80")
	facts := func(change func(*Facts)) Facts {
		f := Facts{Listeners: []netip.AddrPort{port}, Gate: "a packet queue", Inits: true, Unit: &units.Unit{
			Name: "web.service", MainPID: 7, State: "active", Command: "podman run --rm --name=web …", Stop: 40 * time.Second, Start: 90 * time.Second,
		}}
		if change != nil {
			change(&f)
		}
		return f
	}
	socket := func(lost string) func(*Facts) {
		return func(f *Facts) {
			f.Inherited = true
			f.Unit.Sockets = []units.Socket{{Name: "web.socket", Listen: []string{"0.0.0.0:80"}, Lost: lost}}
		}
	}
	profile := Request{Changes: engine.Changes{Seccomp: "/root/new.json"}}
	for _, tt := range []struct {
		name    string
		b       func(*engine.Blueprint)
		f       Facts
		r       Request
		want    Strategy
		refused string // a part of it
		hint    string // a part of it
		steps   string
		warns   string // a part of a warning
	}{
		{"with a socket", managed, facts(socket("")), Request{}, Socket, "", "", "restart listen ready turn", "outside of volumes"},
		{"with a socket and a new profile", managed, facts(socket("")), profile, Socket, "", "", "profile restart listen ready turn", ""},
		{"with a socket, in a network of its own", both(private, managed), facts(socket("")), Request{}, Socket, "", "", "", ""},
		{"with a socket that is closed meanwhile", managed, facts(socket("it is restarted with the service")), Request{}, "",
			"socket: web.socket: it is restarted with the service; hold: its listening sockets are systemd's", "--strategy restart", "", ""},
		{"and restart is asked for", managed, facts(socket("it is failed")), Request{Strategy: Restart}, Restart, "", "", "restart listen ready turn", ""},
		{"with a socket that it was not given", managed, facts(func(f *Facts) { socket("")(f); f.Inherited = false }), Request{}, Hold, "", "", "", ""},
		{"with a socket, and a port of its own", managed, facts(func(f *Facts) {
			socket("")(f)
			f.Own = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9090")}
		}), Request{}, Socket, "", "", "", "127.0.0.1:9090] is refused meanwhile"},
		{"in a network that stays", managed, facts(nil), profile, Hold, "", "", "profile form hold restart listen ready turn release", "established connections end"},
		{"in a network of its own", both(published, managed), facts(nil), profile, Gate, "", "", "profile hold restart listen ready turn", "another address"},
		{"overlap asked for", managed, facts(nil), Request{Strategy: Overlap, Writers: WritersMany}, "", "one instance of a unit", "", "", ""},
		{"socket asked for", managed, facts(nil), Request{Strategy: Socket}, "", "no socket unit belongs to web.service", "", "", ""},
		{"without ports", managed, facts(func(f *Facts) { f.Listeners = nil }), profile, Hold, "", "", "profile restart ready turn", ""},
		{"the unit names a profile of the system's", both(managed, func(b *engine.Blueprint) { b.Seccomp = "/usr/share/containers/seccomp.json" }), facts(nil), profile,
			"", "names no profile in /etc/whittle, which a renewal might replace, but /usr/share/containers/seccomp.json", "seccomp=/etc/whittle/web.json", "", ""},
		{"a profile below", both(managed, func(b *engine.Blueprint) { b.Seccomp = "/etc/whittle/../shadow" }), facts(nil), profile, "", "names no profile in", "", "", ""},
		{"the unit names none", both(managed, func(b *engine.Blueprint) { b.Seccomp = engine.SeccompDefault }), facts(nil), profile, "", "but default", "daemon-reload", "", ""},
		{"the profile is the unit's file", managed, facts(nil), Request{Changes: engine.Changes{Seccomp: "/etc/whittle/web.json"}}, "", "no way back", "another file", "", ""},
		{"no profile at all", managed, facts(nil), Request{Changes: engine.Changes{Seccomp: engine.SeccompUnconfined}}, "", "says which profile", "systemctl edit", "", ""},
		{"the unit starts the same one", both(managed, func(b *engine.Blueprint) { b.AutoRemove = false }), facts(nil), profile, "", "starts the same container again", "--new", "", ""},
		{"the same one, for the policy of now", both(managed, func(b *engine.Blueprint) { b.AutoRemove = false }), facts(nil), Request{}, Hold, "", "", "", ""},
		{"another image", managed, facts(nil), Request{Changes: engine.Changes{Image: "web:2"}}, "", "says what it is made of", "daemon-reload", "", ""},
		{"kept", managed, facts(nil), Request{Retire: RetireKeep}, "", "keeps no predecessor", "", "", ""},
		{"a drain", managed, facts(nil), Request{Drain: time.Second}, "", "for how long it may finish", "TimeoutStopSec", "", ""},
		{"an oracle", managed, facts(func(f *Facts) { f.Unit.Name = "web-oracle.service" }), Request{}, "", "it is an oracle", "production", "", ""},
		{"it is starting", managed, facts(func(f *Facts) { f.Unit.Queued = true }), Request{}, "", "systemd is at its unit", "status web.service", "", ""},
		{"a name of the engine's choice", managed, facts(func(f *Facts) { f.Unit.Command = "podman run --rm image" }), Request{}, "", "could not be found", "--name", "", ""},
		{"a user's unit", managed, facts(func(f *Facts) { f.Unit, f.NoUnit = nil, "it is not-found" }), Request{Strategy: Restart}, "", "cannot be driven: it is not-found", "systemctl restart", "", ""},
		{"its network is another's, too", both(private, managed), facts(func(f *Facts) { f.Sharer = "envoy (process 7)" }), Request{}, "", "by envoy (process 7)", "", "", ""},
		{"it cannot be made again, but by its unit", both(managed, func(b *engine.Blueprint) { b.Problems = []string{"a relative path"} }), facts(nil), Request{}, Hold, "", "", "", ""},
		{"its file was changed", managed, facts(func(f *Facts) { f.Unit.Stale = true }), Request{}, Hold, "", "", "", "daemon-reload"},
		{"what depends on it", managed, facts(func(f *Facts) { f.Unit.With = []string{"app.service", "multi-user.target"} }), Request{}, Hold, "", "", "", "depends on it: app.service"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Choose(blueprint(tt.b), tt.f, tt.r)
			check(t, p, tt.want, tt.refused)
			if !strings.Contains(p.Hint, tt.hint) {
				t.Errorf("hint %q, want one with %q", p.Hint, tt.hint)
			}
			if got := words(p.Steps); tt.steps != "" && got != tt.steps {
				t.Errorf("steps\n got %s\nwant %s", got, tt.steps)
			}
			if !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, tt.warns) }) && tt.warns != "" {
				t.Errorf("warnings are %q, want one with %q", p.Warnings, tt.warns)
			}
			if p.Strategy == "" {
				return
			}
			if p.Unit != "web.service" || p.Writers != WritersOne || len(p.Rejected) != len(Strategies)-1 || len(p.Reasons) < 2 {
				t.Errorf("unit %q, writers %q, rejected %v, reasons %q", p.Unit, p.Writers, p.Rejected, p.Reasons)
			}
			if slices.Contains(p.Steps, StepProfile) != (p.Profile == "/etc/whittle/web.json") {
				t.Errorf("profile %q with the steps %v", p.Profile, p.Steps)
			}
		})
	}
	p := Choose(blueprint(managed), facts(nil), Request{Patience: time.Minute})
	if want := 40*time.Second + time.Minute + restartMargin; p.RestartWithin != want {
		t.Errorf("restart within %v, want %v", p.RestartWithin, want)
	}
}

// What systemd has given is told from what the container listens on besides.
func TestShare(t *testing.T) {
	f := Facts{Unit: &units.Unit{Sockets: []units.Socket{{Listen: []string{"[::]:80", "/run/web.sock"}}, {Listen: []string{"127.0.0.1:81"}}}}}
	var all []netip.AddrPort
	for _, text := range []string{"127.0.0.1:9090", "[::]:80", "127.0.0.1:81", "[::]:80", "0.0.0.0:81"} {
		all = append(all, netip.MustParseAddrPort(text))
	}
	f.share(all)
	got := map[string]string{"given": joined(f.Listeners), "own": joined(f.Own)}
	if diff := cmp.Diff(map[string]string{"given": "127.0.0.1:81 [::]:80", "own": "0.0.0.0:81 127.0.0.1:9090"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func joined(all []netip.AddrPort) string {
	var words []string
	for _, a := range all {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}
