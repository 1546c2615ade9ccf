// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
	askers "github.com/whittle-sec/whittle/testbed/load"
	"golang.org/x/sys/unix"
)

// A service that listens at its container's own address only: its successor gets it, and is asked there.
func TestRenewedAtItsOwnAddress(t *testing.T) {
	t.Parallel()
	b, host := upPublished(t, "web:80", "--hostname", "web")
	result := renewed(t, b.runner(), b.request("", ""))
	if result.Outcome != renew.Renewed || result.Strategy != renew.Gate {
		t.Fatalf("result: %s", describe(result))
	}
	if err := host.Ask(t.Context(), askers.HTTP("/", `"second"`)); err != nil {
		t.Error(err)
	}
}

// A container that has this one's network would be left without: that is refused, and said.
func TestNetworkThatIsShared(t *testing.T) {
	t.Parallel()
	b, host := upPublished(t, ":80")
	bedtest.Podman(t, b.env, "run", "--detach", "--network", "container:web", "--name", "sidecar", renewedImage, ":81")
	if result, err := b.runner().Run(t.Context(), b.request("", "")); !errors.Is(err, renew.ErrRefused) || !strings.Contains(err.Error(), "by service (process ") {
		t.Errorf("renewed: %v, %s; want it refused", err, describe(result))
	}
	if err := host.Ask(t.Context(), askers.HTTP("/", `"first"`)); err != nil {
		t.Error(err)
	}
	// Who wants it all the same is told that the predecessor cannot be removed, and may renew the successor again.
	for range 2 {
		result := renewed(t, b.runner(), b.request("", renew.Restart))
		if result.Outcome != renew.Renewed || result.Hint != "" {
			t.Errorf("result: %s", describe(result))
		}
		if i := slices.IndexFunc(result.Warnings, func(w string) bool { return strings.Contains(w, "is there still") }); i < 0 && result.Predecessor == b.id {
			t.Errorf("warnings %q: none says that the predecessor is left", result.Warnings)
		}
	}
	bedtest.Podman(t, b.env, "rm", "--force", "--time", "0", "sidecar")
}

// upPublished starts the service in a network of its own, with a published port, on a host of its own: what is started from
// here is in the network namespace of this thread.
func upPublished(t *testing.T, listens string, options ...string) (b *renewBed, host askers.Target) {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "ip")
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	const address, published, inside = "192.0.2.1", "8080", "80"
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", address + "/32", "dev", "lo"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	b = bedWithImage(t)
	args := append([]string{"run", "--detach", "--publish", published + ":" + inside, "--name", "web", "--env", "WHO=first"}, options...)
	b.id = bedtest.Podman(t, b.env, append(args, renewedImage, listens)...)
	host = askers.Target{Addr: address + ":" + published, NetNS: fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())}
	eventually(t, "the service answers", func() (bool, string) {
		err := host.Ask(t.Context(), askers.HTTP("/", `"first"`))
		return err == nil, fmt.Sprint(err)
	})
	return b, host
}

// A container with a network of its own takes it along. New connections wait at the host.
func TestRenewedAtTheGate(t *testing.T) {
	t.Parallel()
	b, host := upPublished(t, ":80")
	clients := askers.Start(t.Context(), host, askers.HTTP("/", "served by"), askers.Load{Workers: 4, PerConnection: 1, Timeout: patience})
	for range 3 {
		result := renewed(t, b.runner(), b.request("", ""))
		t.Logf("gap %v, %d waited, took %v", result.Gap, result.Held, result.Took)
		if result.Outcome != renew.Renewed || result.Strategy != renew.Gate || result.Held == 0 {
			t.Fatalf("result: %s", describe(result))
		}
	}
	q := b.request("exit", "")
	result := renewed(t, b.runner(), q)
	if result.Outcome != renew.RolledBack || !strings.Contains(result.Why, "no licence") {
		t.Errorf("result: %s", describe(result))
	}
	stats := clients.Stop()
	t.Log(stats)
	if stats.Failed > 0 || stats.Requests < 100 {
		t.Errorf("%v; want none to fail, of many", stats)
	}
	if err := host.Ask(t.Context(), askers.HTTP("/", `"second"`)); err != nil {
		t.Error(err)
	}
	for _, step := range []renew.Step{renew.StepHold, renew.StepStart, renew.StepTurn} {
		b.killed(t, b.request("", ""), step)
		results, err := b.runner().Recover(t.Context())
		if err != nil || len(results) != 1 || results[0].Outcome == renew.Broken {
			t.Errorf("recover from %s: %s, %v", step, describe(results), err)
		}
		if err := host.Ask(t.Context(), askers.HTTP("/", `"second"`)); err != nil {
			t.Errorf("after %s: %v", step, err)
		}
	}
}
