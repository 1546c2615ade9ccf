// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

func TestAddressed(t *testing.T) {
	local, dhcp := network{Driver: "bridge"}, network{Driver: "macvlan"}
	local.IPAM.Driver, dhcp.IPAM.Driver = "host-local", "dhcp"
	const one = `"one":{"IPAddress":"10.0.0.7","GlobalIPv6Address":"fd00::7","MacAddress":"02:00:00:00:00:07"}`
	const two = `"two":{"IPAddress":"10.0.1.8","MacAddress":"02:00:00:00:00:08"}`
	both := map[string]network{"one": local, "two": local}
	for _, tt := range []struct {
		name     string
		networks string // in the inspection
		asked    map[string]network
		options  string // of the command line
		address  engine.Addressing
		want     string
	}{
		{"as it was made", one, both, "network=one", engine.AddressAsMade, "network=one"},
		{"one", one, both, "network=one", engine.AddressKeep, "network=one:ip=10.0.0.7,ip6=fd00::7,mac=02:00:00:00:00:07"},
		{"two", one + "," + two, both, "network=one network=two:alias=x", engine.AddressKeep,
			"network=one:ip=10.0.0.7,ip6=fd00::7,mac=02:00:00:00:00:07 network=two:alias=x,ip=10.0.1.8,mac=02:00:00:00:00:08"},
		{"two in one", one + "," + two, both, "network=one,two", engine.AddressKeep,
			"network=one:ip=10.0.0.7,ip6=fd00::7,mac=02:00:00:00:00:07 network=two:ip=10.0.1.8,mac=02:00:00:00:00:08"},
		{"fixed", one, both, "network=one ip=10.0.0.7", engine.AddressKeep, "network=one ip=10.0.0.7"},
		{"fixed in one of two", one + "," + two, both, "network=one:ip=10.0.0.7 network=two", engine.AddressKeep,
			"network=one:ip=10.0.0.7 network=two:ip=10.0.1.8,mac=02:00:00:00:00:08"},
		{"a fixed interface", two, both, "network=two mac-address=02:00:00:00:00:08", engine.AddressKeep,
			"network=two:ip=10.0.1.8 mac-address=02:00:00:00:00:08"},
		{"the default network", `"podman":{"IPAddress":"10.88.0.9"}`, map[string]network{"podman": local}, "", engine.AddressKeep, "network=bridge:ip=10.88.0.9"},
		{"from elsewhere", two, map[string]network{"two": dhcp}, "network=two", engine.AddressKeep, "network=two"},
		{"gone", two, map[string]network{"two": {}}, "network=two", engine.AddressKeep, "network=two"},
		{"none", `"two":{"IPAddress":"","MacAddress":"x"}`, both, "network=two", engine.AddressKeep, "network=two"},
		{"hostile", `"two":{"IPAddress":"10.0.0.1,alias=x","MacAddress":"x"}`, both, "network=two", engine.AddressKeep, "network=two"},
		{"any", one + "," + two, nil, "network=one:ip=10.0.0.7,alias=x network=two:ip=10.0.1.8", engine.AddressAny, "network=one:alias=x network=two"},
		{"any, by an option", one, nil, "network=one ip=10.0.0.7 ip6=fd00::7", engine.AddressAny, "network=one"},
	} {
		e := editor{networks: tt.asked, changes: engine.Changes{Address: tt.address}}
		text := `{"HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{` + tt.networks + `}}}`
		if err := json.Unmarshal([]byte(text), &e.in); err != nil {
			t.Fatal(err)
		}
		for o := range strings.FieldsSeq(tt.options) {
			name, value, _ := strings.Cut(o, "=")
			e.add(name, value)
		}
		e.addressed()
		var got []string
		for _, o := range e.out {
			got = append(got, strings.TrimPrefix(o.arg(), "--"))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %s\n%s, want\n%s", tt.name, tt.options, strings.Join(got, " "), tt.want)
		}
	}
}

func TestAttachments(t *testing.T) {
	local := network{Driver: "bridge"}
	local.IPAM.Driver = "host-local"
	c := command{options: []setting{{flag{name: "network"}, "b:ip=10.0.0.7"}, {flag{name: "network"}, "a"}}}
	got := attachments(map[string]network{"b": local, "a": {Driver: "macvlan"}}, c)
	want := []engine.Attachment{{Network: "a", Driver: "macvlan"}, {Network: "b", Driver: "bridge", Fixed: true, Askable: true}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("attachments are %+v, want %+v", got, want)
	}
}

// What Podman says of a network that does not pass the host, and of its addresses.
func TestBlueprintOfNetworks(t *testing.T) {
	s := open(t)
	s.podman("network", "create", "--driver", "macvlan", "--subnet", "10.79.0.0/24", "lan")
	for options, want := range map[string]engine.Attachment{
		"--network=lan":              {Network: "lan", Driver: "macvlan", Askable: true},
		"--network=lan:ip=10.79.0.9": {Network: "lan", Driver: "macvlan", Askable: true, Fixed: true},
		"--network=bridge":           {Network: "podman", Driver: "bridge", Askable: true},
	} {
		b, err := s.p.Blueprint(t.Context(), s.podman("create", options, bedtest.Busybox, "/bin/sh"))
		if err != nil || len(b.Networks) != 1 || b.Networks[0] != want || b.NetworkKept {
			t.Errorf("%s: networks %+v, %v; want %+v", options, b.Networks, err, want)
		}
	}
}
