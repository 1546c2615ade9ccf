// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/testbed/bedtest"
	askers "github.com/whittle-sec/whittle/testbed/load"
)

// lan is a network with names, in which a neighbour asks web at the address that it has looked up once.
type lan struct {
	*renewBed
	name  string
	peer  askers.Target
	plugs string // what web has in it: both addresses, and that of its interface
}

func upLAN(t *testing.T) lan {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	n := lan{renewBed: bedWithImage(t), name: fmt.Sprintf("lan%d", os.Getpid())} // addresses are taken in a file that all Podmans share
	bedtest.Podman(t, n.env, "network", "create", "--subnet", "10.77.0.0/24", "--ipv6", "--subnet", "fd77::/64", n.name)
	bedtest.Podman(t, n.env, "run", "--detach", "--network", n.name, "--name", "neighbour", renewedImage, ":81")
	n.id = bedtest.Podman(t, n.env, "run", "--detach", "--network", n.name, "--name", "web", "--env", "WHO=first", renewedImage, ":80")
	n.plugs = n.plugged(t)
	n.peer = askers.Target{
		Addr:  strings.Fields(n.plugs)[0] + ":80",
		NetNS: fmt.Sprintf("/proc/%s/ns/net", bedtest.Podman(t, n.env, "inspect", "--format", "{{.State.Pid}}", "neighbour")),
	}
	eventually(t, "the service answers", func() (bool, string) {
		err := n.peer.Ask(t.Context(), askers.HTTP("/", `"first"`))
		return err == nil, fmt.Sprint(err)
	})
	return n
}

func (n lan) plugged(t *testing.T) string {
	t.Helper()
	return bedtest.Podman(t, n.env, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{.MacAddress}}{{end}}", "web")
}

// moved tells whether a warning says that the address is another.
func moved(r renew.Result) bool {
	return slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "its address was") })
}

// Who has looked the service up before finds its successor, and that one's, without asking again.
func TestAddressStays(t *testing.T) {
	n := upLAN(t)
	clients := askers.Start(t.Context(), n.peer, askers.HTTP("/", "served by"), askers.Load{Workers: 2, PerConnection: 1})
	for range 3 {
		q := n.request("", "")
		q.Patience = renew.DefaultPatience
		result := renewed(t, n.runner(), q)
		if result.Outcome != renew.Renewed || result.Strategy != renew.Gate || moved(result) {
			t.Fatalf("result: %s", describe(result))
		}
		if got := n.plugged(t); got != n.plugs {
			t.Errorf("the successor has %s, and its predecessor had %s", got, n.plugs)
		}
		if err := n.peer.Ask(t.Context(), askers.HTTP("/", `"second"`)); err != nil {
			t.Error(err)
		}
		t.Logf("gap %v, took %v", result.Gap, result.Took)
	}
	t.Log(clients.Stop())
	// It is the engine's choice again where somebody says so.
	q := n.request("", "")
	q.Changes.Address, q.Patience = engine.AddressAny, renew.DefaultPatience
	result := renewed(t, n.runner(), q)
	if got := n.plugged(t); result.Outcome != renew.Renewed || strings.Fields(got)[0] == strings.Fields(n.plugs)[0] || !moved(result) {
		t.Errorf("with any address it has %s: %s", got, describe(result))
	}
	if b, err := n.engine.Blueprint(t.Context(), "web"); err != nil || len(b.Networks) != 1 || b.Networks[0] != (engine.Attachment{Network: n.name, Driver: "bridge", Askable: true}) {
		t.Errorf("networks %+v, %v; want %s, with no fixed address", b.Networks, err, n.name)
	}
}

// Somebody takes the address while neither runs.
func TestAddressIsTaken(t *testing.T) {
	n := upLAN(t)
	r := n.runner()
	r.Tell = func(d renew.Done) {
		if d.Step == renew.StepStart && d.State == renew.Begins {
			bedtest.Podman(t, n.env, "run", "--detach", "--network", n.name, "--ip", strings.Fields(n.plugs)[0], "--name", "thief", renewedImage, ":82")
		}
	}
	for _, tt := range []struct {
		name    string
		thief   bool
		address engine.Addressing
		want    renew.Outcome
		moves   bool
	}{
		// The predecessor was not made with its address.
		{"insisted on", true, engine.AddressKeep, renew.RolledBack, true},
		{"not insisted on", true, engine.AddressAsMade, renew.Renewed, true},
		{"made fixed", false, engine.AddressAsMade, renew.Renewed, false},
		{"fixed, and insisted on", true, engine.AddressKeep, renew.Broken, false},
		{"fixed, and not insisted on", true, engine.AddressAsMade, renew.Renewed, true},
	} {
		n.plugs = n.plugged(t)
		run, q := n.runner(), n.request("", "")
		if tt.thief {
			run = r
		}
		q.Changes.Address, q.Patience = tt.address, renew.DefaultPatience // it is made twice, on a busy machine
		result := renewed(t, run, q)
		if result.Outcome != tt.want || moved(result) != tt.moves {
			t.Fatalf("%s: %s", tt.name, describe(result))
		}
		if tt.thief {
			bedtest.Podman(t, n.env, "rm", "--force", "--time", "0", "thief")
		}
		if tt.want == renew.Broken { // until the address is free
			results, err := n.runner().Recover(t.Context())
			if err != nil || len(results) != 1 || results[0].Outcome != renew.RolledBack {
				t.Fatalf("%s: recovered %s, %v", tt.name, describe(results), err)
			}
		}
		n.peer.Addr = strings.Fields(n.plugged(t))[0] + ":80"
		if err := n.peer.Ask(t.Context(), askers.HTTP("/", "served by")); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if names := strings.Fields(bedtest.Podman(t, n.env, "ps", "--all", "--format", "{{.Names}}")); len(names) != 2 {
			t.Errorf("%s: containers %v", tt.name, names)
		}
	}
}

// Docker takes the wish for an address in networks whose subnet was configured. Elsewhere it chooses the lowest, and that is told.
func TestAddressStaysWithDocker(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the test. The gate is here; Docker has a network of its own
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	e, run := dockerWithImage(t)
	b := &renewBed{}
	r := &renew.Runner{Engine: e, Dir: t.TempDir()}
	run("network", "create", "--subnet", "10.98.0.0/24", "configured")
	run("network", "create", "chosen")
	for _, network := range []string{"configured", "chosen"} {
		run("run", "--detach", "--network", network, "--name", "lower", renewedImage, ":80")
		run("run", "--detach", "--network", network, "--name", "web", "--env", "WHO=first", renewedImage, ":80")
		address := func() string {
			return strings.TrimSpace(run("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}", "web"))
		}
		before := address()
		run("rm", "--force", "lower")
		for range 2 {
			q := b.request("", "")
			q.Patience = renew.DefaultPatience
			result := renewed(t, r, q)
			t.Logf("%s: gap %v, took %v", before, result.Gap, result.Took)
			stays := address() == before
			if result.Outcome != renew.Renewed || stays == moved(result) || stays != (network == "configured") {
				t.Fatalf("%s, and was %s: %s", address(), before, describe(result))
			}
			if network == "chosen" {
				break
			}
		}
		run("rm", "--force", "web")
	}
}
