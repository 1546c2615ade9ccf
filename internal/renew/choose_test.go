// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/internal/traffic"
	"github.com/whittle-sec/whittle/internal/workload"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func blueprint(change func(*engine.Blueprint)) engine.Blueprint {
	b := engine.Blueprint{
		Container: engine.Container{
			Container: workload.Container{Engine: "podman", ID: strings.Repeat("a", 64), Name: "web"}, State: engine.Running,
		},
		Network: engine.NetworkHost, NetworkKept: true, StopTimeout: 7 * time.Second,
	}
	if change != nil {
		change(&b)
	}
	return b
}

func private(b *engine.Blueprint) { b.Network, b.NetworkKept = engine.NetworkPrivate, false }

func published(b *engine.Blueprint) {
	private(b)
	b.Ports = []engine.PublishedPort{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}
}

// plugged into networks, in one of which it has an address.
func plugged(all ...engine.Attachment) func(*engine.Blueprint) {
	return func(b *engine.Blueprint) {
		private(b)
		b.Networks, b.Addresses = all, []netip.Addr{netip.MustParseAddr("10.0.0.7")}
	}
}

func data(b *engine.Blueprint) { b.Volumes = []engine.Mount{{Volume: "data", Destination: "/data"}} }

func both(f ...func(*engine.Blueprint)) func(*engine.Blueprint) {
	return func(b *engine.Blueprint) {
		for _, one := range f {
			one(b)
		}
	}
}

func TestChoose(t *testing.T) {
	serves := Facts{Listeners: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}, Gate: "a packet queue", Inits: true}
	facts := func(change func(*Facts)) Facts {
		f := serves
		change(&f)
		return f
	}
	askable, fixed := engine.Attachment{Network: "a", Driver: "bridge", Askable: true}, engine.Attachment{Network: "a", Driver: "bridge", Fixed: true}
	for _, tt := range []struct {
		name    string
		b       func(*engine.Blueprint)
		f       Facts
		r       Request
		want    Strategy
		refused string // a part of it
		steps   string
		warns   string // a part of a warning
	}{
		{"stateless in a network that stays", nil, serves, Request{}, Overlap, "",
			"make init form start listen ready turn drain release away name remove", "outside of volumes"},
		{"a volume that can be written to", data, serves, Request{}, Hold, "",
			"make init form hold stop start listen ready turn release away name remove", "established connections end"},
		{"a volume that cannot", func(b *engine.Blueprint) { b.Volumes = []engine.Mount{{Destination: "/etc/x", ReadOnly: true}} }, serves,
			Request{}, Overlap, "", "", ""},
		{"a volume for many", data, serves, Request{Writers: WritersMany}, Overlap, "", "", ""},
		{"no volume, and only one at a time", nil, serves, Request{Writers: WritersOne}, Hold, "", "", ""},
		{"overlap on a volume is refused", data, serves, Request{Strategy: Overlap}, "", "two instances would write", "", ""},
		{"a kernel that moves no sockets", nil, facts(func(f *Facts) { f.NoTraffic = "Linux 5.4" }), Request{}, "", "Linux 5.4", "", ""},
		{"and restart is asked for", nil, facts(func(f *Facts) { f.NoTraffic = "Linux 5.4" }), Request{Strategy: Restart}, Restart, "",
			"make init stop start listen ready turn away name remove", ""},
		{"hold is asked for", nil, serves, Request{Strategy: Hold}, Hold, "", "", ""},
		{"a private network", published, serves, Request{}, Gate, "",
			"make hold stop start listen ready turn away name remove", "another address"},
		{"a private network with data", both(published, data), serves, Request{}, Gate, "", "", ""},
		{"a private network, overlap asked for", published, serves, Request{Strategy: Overlap}, "", "a published port leads to one", "", ""},
		{"a private network, hold asked for", private, serves, Request{Strategy: Hold}, "", "goes away with it", "", ""},
		{"a private network where nothing can wait", published, facts(func(f *Facts) { f.NoGate = "no nftables" }), Request{}, "", "no nftables", "", ""},
		{"an address that can be asked for", plugged(askable), serves, Request{}, Gate, "", "", "asked for the address 10.0.0.7 for good"},
		{"an address that is anybody's", plugged(askable), serves, Request{Changes: engine.Changes{Address: engine.AddressAny}}, Gate, "", "", "another address"},
		{"one of two cannot be asked for", plugged(askable, engine.Attachment{Network: "b", Driver: "bridge"}), serves, Request{}, Gate, "", "", "another address"},
		{"a worker's address", plugged(askable), facts(func(f *Facts) { f.Listeners = nil }), Request{}, Overlap, "", "", "another address"},
		{"a worker's address is to stay", plugged(askable), facts(func(f *Facts) { f.Listeners = nil }), Request{Changes: engine.Changes{Address: engine.AddressKeep}}, Hold, "", "", "for good"},
		{"a worker's fixed address", plugged(fixed), facts(func(f *Facts) { f.Listeners = nil }), Request{}, Hold, "", "", ""},
		{"a worker's fixed address is to go", plugged(fixed), facts(func(f *Facts) { f.Listeners = nil }), Request{Changes: engine.Changes{Address: engine.AddressAny}}, Overlap, "", "", "another address"},
		{"a network past the host", plugged(askable, engine.Attachment{Network: "lan", Driver: "macvlan"}), serves, Request{}, "", "by its network lan does not pass the host's rules: its driver is macvlan", "", ""},
		{"a network of a driver that is not known", plugged(engine.Attachment{Network: "lan"}), serves, Request{Strategy: Gate}, "", "not known", "", ""},
		{"a network past the host, restart asked for", plugged(engine.Attachment{Network: "lan", Driver: "ipvlan", Askable: true}), serves, Request{Strategy: Restart}, Restart, "", "", "for good"},
		{"no network at all", func(b *engine.Blueprint) { private(b); b.Network = engine.NetworkNone }, serves, Request{}, "", "nothing arrives", "", ""},
		{"a worker", nil, facts(func(f *Facts) { f.Listeners, f.NoTraffic, f.NoGate = nil, "no", "no" }), Request{}, Overlap, "",
			"make init start ready turn drain away name remove", ""},
		{"a worker with data", data, facts(func(f *Facts) { f.Listeners = nil }), Request{}, Hold, "",
			"make init stop start ready turn away name remove", ""},
		{"a worker with published ports", published, facts(func(f *Facts) { f.Listeners = nil }), Request{}, Hold, "", "", ""},
		{"removed when it stops", func(b *engine.Blueprint) { b.AutoRemove = true }, serves, Request{}, Overlap, "", "", ""},
		{"removed when it stops, with data", func(b *engine.Blueprint) { b.AutoRemove = true; data(b) }, serves, Request{}, "", "nothing to go back to", "", ""},
		{"removed when it stops, restart asked for", func(b *engine.Blueprint) { b.AutoRemove = true }, serves, Request{Strategy: Restart}, "", "nothing to go back to", "", ""},
		{"a unit", func(b *engine.Blueprint) { b.SystemdUnit = "web.service" }, serves, Request{Strategy: Restart}, "", "the unit web.service manages it", "", ""},
		{"sockets that were given to it", nil, facts(func(f *Facts) { f.Inherited = true }), Request{}, "", "LISTEN_FDS", "", ""},
		{"cannot be made again", func(b *engine.Blueprint) { b.Problems = []string{"a relative path"} }, serves, Request{}, "", "a relative path", "", ""},
		{"it ended", func(b *engine.Blueprint) { b.State = engine.Exited }, serves, Request{}, "", "does not run", "", ""},
		{"it is paused", func(b *engine.Blueprint) { b.State = engine.Paused }, serves, Request{}, "", "paused", "", ""},
		{"UDP", nil, facts(func(f *Facts) {
			f.Unmovable = []traffic.Unmovable{{Kind: "udp socket", Name: "0.0.0.0:53", Why: "it has no queue"}}
		}),
			Request{}, Overlap, "", "", "udp socket 0.0.0.0:53 is not moved"},
		{"kept, removed when it stops", func(b *engine.Blueprint) { b.AutoRemove = true }, serves, Request{Retire: RetireKeep}, "", "cannot be kept", "", ""},
		{"kept, started again", func(b *engine.Blueprint) { b.RestartPolicy = "always" }, serves, Request{Retire: RetireKeep}, Overlap, "", "", "restart policy (always)"},
		{"one writer, started at boot", both(data, func(b *engine.Blueprint) { b.RestartPolicy = "always" }), serves, Request{}, Hold, "", "", "when the host boots"},
		{"its network is another's, too", private, facts(func(f *Facts) { f.Sharer = "envoy (process 7)" }), Request{}, "", "by envoy (process 7)", "", ""},
		{"its network is another's, too, and stays", nil, facts(func(f *Facts) { f.Sharer = "envoy (process 7)" }), Request{}, Overlap, "", "", ""},
		{"its network is another's, too, and will not", private, facts(func(f *Facts) { f.Sharer = "envoy (process 7)" }), Request{Strategy: Restart}, Restart, "", "", "left without one"},
		{"an oracle", func(b *engine.Blueprint) { b.Labels = map[string]string{"io.whittle.oracle": "x"} }, serves, Request{}, "", "it is an oracle", "", ""},
		{"kept", nil, serves, Request{Retire: RetireKeep}, Overlap, "", "make init form start listen ready turn drain release away name", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Choose(blueprint(tt.b), tt.f, tt.r)
			check(t, p, tt.want, tt.refused)
			if got := words(p.Steps); tt.steps != "" && got != tt.steps {
				t.Errorf("steps\n got %s\nwant %s", got, tt.steps)
			}
			if !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, tt.warns) }) && tt.warns != "" {
				t.Errorf("warnings are %q, want one with %q", p.Warnings, tt.warns)
			}
			if p.Strategy != "" && (len(p.Rejected) != len(Strategies)-1 || len(p.Reasons) == 0) {
				t.Errorf("reasons %q, rejected %v: the others are to be named, and why", p.Reasons, p.Rejected)
			}
		})
	}
}

// check what was chosen, or that it was refused with a reason and with what to do.
func check(t *testing.T, p Plan, want Strategy, refused string) {
	t.Helper()
	if p.Strategy != want || !strings.Contains(p.Refused, refused) || (p.Refused == "") != (refused == "") {
		t.Errorf("strategy %q, refused %q; want %q, %q", p.Strategy, p.Refused, want, refused)
	}
	if p.Refused != "" && p.Hint == "" {
		t.Errorf("%q: without a hint", p.Refused)
	}
}

func words(steps []Step) string {
	text := fmt.Sprint(steps)
	return text[1 : len(text)-1]
}

// A fixed address is not warned of: it stays as it is.
func TestChooseFixedAddress(t *testing.T) {
	serves := Facts{Listeners: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}}
	for _, w := range Choose(blueprint(plugged(engine.Attachment{Network: "a", Driver: "bridge", Fixed: true})), serves, Request{}).Warnings {
		if strings.Contains(w, "address") {
			t.Errorf("warned: %s", w)
		}
	}
}

func TestChooseSuccessor(t *testing.T) {
	serves := Facts{Listeners: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}, Inits: true}
	for _, tt := range []struct {
		name    string
		s       func(*engine.Blueprint)
		want    Strategy
		refused string
	}{
		{"stopped", func(*engine.Blueprint) {}, Overlap, ""},
		{"running", func(s *engine.Blueprint) { s.State = engine.Running }, "", "runs already"},
		{"itself", func(s *engine.Blueprint) { s.ID = strings.Repeat("a", 64) }, "", "its own successor"},
		{"in another network", func(s *engine.Blueprint) { s.Network = "container:x" }, "", "another network"},
		{"removed when it stops", func(s *engine.Blueprint) { s.AutoRemove = true }, "", "removed when it stops"},
		{"an oracle", func(s *engine.Blueprint) { s.Labels = map[string]string{oracleLabel: "x"} }, Overlap, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := blueprint(func(s *engine.Blueprint) { s.ID, s.Name, s.State = "b", "twin", engine.Exited })
			tt.s(&s)
			f := serves
			f.Successor = &s
			p := Choose(blueprint(func(b *engine.Blueprint) { b.Problems = []string{"it need not be made again"} }), f, Request{Successor: "twin", Retire: RetireKeep})
			check(t, p, tt.want, tt.refused)
			if tt.want != "" {
				if got := words(p.Steps); got != "init form start listen ready turn drain release" {
					t.Errorf("steps are %s: none is made, renamed or removed", got)
				}
			}
		})
	}
}

func TestChooseTimes(t *testing.T) {
	for _, tt := range []struct {
		name            string
		stop            time.Duration
		r               Request
		drain, patience time.Duration
	}{
		{"the container's", 7 * time.Second, Request{}, 7 * time.Second, DefaultPatience},
		{"the engine's", 0, Request{}, defaultDrain, DefaultPatience},
		{"asked for", 7 * time.Second, Request{Drain: time.Second, Patience: time.Hour}, time.Second, time.Hour},
	} {
		p := Choose(blueprint(func(b *engine.Blueprint) { b.StopTimeout = tt.stop }), Facts{}, tt.r)
		if diff := cmp.Diff([]time.Duration{tt.drain, tt.patience}, []time.Duration{p.Drain, p.Patience}); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestRequestCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		q    Request
		want string
	}{
		{"least", Request{Container: "web"}, ""},
		{"all", Request{Container: "web", Strategy: Hold, Writers: WritersMany, Retire: RetireKeep, Ready: Ready{HTTP: "/x"}}, ""},
		{"nobody", Request{}, "no container"},
		{"strategy", Request{Container: "web", Strategy: "hope"}, "unknown strategy"},
		{"writers", Request{Container: "web", Writers: "two"}, "unknown number"},
		{"retire", Request{Container: "web", Retire: "kill"}, "unknown way"},
		{"drain", Request{Container: "web", Drain: -1}, "negative"},
		{"path", Request{Container: "web", Ready: Ready{HTTP: "x"}}, "slash"},
		{"address", Request{Container: "web", Changes: engine.Changes{Address: "10.0.0.7"}}, "unknown wish"},
		{"name", Request{Container: "web", Changes: engine.Changes{Name: "x"}}, "chosen by the renewal"},
	} {
		if err := tt.q.Check(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
