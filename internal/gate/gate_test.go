// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
)

const holderVar = "WHITTLE_TEST_GATE_HOLDER"

func TestMain(m *testing.M) {
	if os.Getenv(holderVar) != "" {
		hold()
	}
	testenv.Main(m)
}

// hold a gate until the process is killed: a child of TestHolderKilled.
func hold() {
	if _, err := Shut(context.Background(), []Destination{anywhere(8080)}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("shut")
	select {}
}

// working are the attempts with which a gate can be shut on this machine; the others leave nothing.
func working(t *testing.T, queues bool) []attempt {
	t.Helper()
	ns := newNetNS(t)
	var works []attempt
	for _, a := range attempts() {
		if a.queues != queues {
			continue
		}
		err := ns.do(func() error {
			g, err := shut(within(t), []Destination{anywhere(1)}, []attempt{a})
			if err != nil {
				return err
			}
			return g.Open()
		})
		if err != nil {
			t.Logf("%s: %v", a.fence.name(), err)
			if rules := ns.rules(t); rules != "" {
				t.Errorf("%s failed and left %q", a.fence.name(), rules)
			}
			continue
		}
		works = append(works, a)
	}
	if len(works) == 0 {
		t.Fatal("none works")
	}
	return works
}

func TestSupported(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "iptables")
	how, err := Supported()
	if err != nil || !strings.HasPrefix(how, "packet queue") {
		t.Fatalf("Supported() = %q, %v, want a packet queue", how, err)
	}
	t.Log(how)
}

func TestProbeOfEach(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "iptables", "nft")
	for _, queues := range []bool{true, false} {
		for _, a := range working(t, queues) {
			err := newNetNS(t).do(func() error { return tryOne(a) })
			if err != nil {
				t.Errorf("%s, queue %t: %v", a.fence.name(), queues, err)
			}
		}
	}
}

// A container goes, and another comes with another address: whoever connects in between reaches it.
func TestConnectionsWait(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "iptables", "nft")
	const each = 10
	for _, a := range working(t, true) {
		t.Run(a.fence.name(), func(t *testing.T) {
			h := newHost(t)
			stop := h.start(t, "predecessor", 1)
			ctx := within(t)
			before := h.rules(t)
			for _, from := range []*netns{h.client, h.netns} {
				for _, to := range []string{"10.99.0.1:8080", "[fd99::1]:8080"} {
					if who, err := from.visit(ctx, to); err != nil || who != "predecessor" {
						t.Fatalf("%s is served by %q, %v", to, who, err)
					}
				}
			}
			g := h.shut(t, ctx, []attempt{a}, anywhere(8080))
			stop()
			var visitors crowd
			visitors.visit(t, ctx, h.client, "10.99.0.1:8080", each)
			visitors.visit(t, ctx, h.client, "[fd99::1]:8080", each)
			visitors.visit(t, ctx, h.netns, "10.99.0.1:8080", each)
			visitors.visit(t, ctx, h.netns, "[fd99::1]:8080", each)
			waitHeld(t, g, 4*each)
			if _, err := h.client.visit(ctx, "10.99.0.1:8081"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("another port: %v, want it refused as ever", err)
			}
			stop = h.start(t, "successor", 2)
			if err := g.Open(); err != nil {
				t.Fatal(err)
			}
			if who := visitors.wait(); who["successor"] != 4*each {
				t.Errorf("served by %v, want %d by the successor", who, 4*each)
			}
			if held, dropped := g.Waited(); held != 4*each || dropped != 0 {
				t.Errorf("Waited() = %d, %d, want %d, 0", held, dropped, 4*each)
			}
			if err := g.Open(); err != nil {
				t.Errorf("opening it again: %v", err)
			}
			stop()
			if after := strings.ReplaceAll(h.rules(t), "10.88.2", "10.88.1"); strings.Contains(after, tagPrefix) {
				t.Errorf("rules left:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// Where packets are dropped, the same holds; the clients' kernels ask again after a second.
func TestDropping(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "iptables", "nft")
	for _, a := range working(t, false) {
		t.Run(a.fence.name(), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			ctx := within(t)
			g := h.shut(t, ctx, []attempt{a}, anywhere(8080))
			var visitors crowd
			visitors.visit(t, ctx, h.client, "10.99.0.1:8080", 2)
			visitors.visit(t, ctx, h.netns, "[fd99::1]:8080", 2)
			eventually(t, "four packets are dropped", func() bool {
				_, dropped := g.Waited()
				return dropped >= 4
			})
			h.start(t, "successor", 2)
			if err := g.Open(); err != nil {
				t.Fatal(err)
			}
			if who := visitors.wait(); who["successor"] != 4 {
				t.Errorf("served by %v, want 4 by the successor", who)
			}
			if held, dropped := g.Waited(); held != 0 || dropped < 4 {
				t.Errorf("Waited() = %d, %d, want none held and at least 4 dropped", held, dropped)
			}
			if rules := h.rules(t); strings.Contains(rules, tagPrefix) || strings.Contains(rules, "whittle") {
				t.Errorf("rules left:\n%s", rules)
			}
		})
	}
}

// What goes on while the gate is shut: other ports, other addresses, and connections that there were before.
func TestOthersAreNotTouched(t *testing.T) {
	h := newHost(t)
	ctx := within(t)
	h.serve(t, "gated", "10.99.0.1:7000")
	h.serve(t, "other address", "127.0.0.1:7000")
	h.serve(t, "other port", "10.99.0.1:7001")
	old, _, err := h.client.dial(ctx, "10.99.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	h.sh(t, "iptables -t raw -A PREROUTING -p tcp --dport 7000 -m comment --comment whittle-gate-of-mine -j ACCEPT")
	foreign := h.rules(t)
	g := h.shut(t, ctx, attempts(), at("10.99.0.1:7000"))
	for range 100 {
		for _, c := range []struct {
			from *netns
			to   string
		}{{h.netns, "127.0.0.1:7000"}, {h.client, "10.99.0.1:7001"}} {
			if _, err := c.from.visit(ctx, c.to); err != nil {
				t.Fatalf("%s: %v", c.to, err)
			}
		}
		if _, err := old.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(old, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, last := kernelQueue(t, g); last != 0 {
		t.Errorf("the queue got %d packets of others, want none", last)
	}
	var visitors crowd
	visitors.visit(t, ctx, h.client, "10.99.0.1:7000", 1)
	waitHeld(t, g, 1)
	if _, last := kernelQueue(t, g); last == 0 {
		t.Error("the queue's own count does not count")
	}
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	visitors.wait()
	if rules := h.rules(t); rules != foreign {
		t.Errorf("rules are\n%s\nwant them as they were:\n%s", rules, foreign)
	}
}

// kernelQueue is how many packets wait in a gate's queue and how many ever came.
func kernelQueue(t *testing.T, g *Gate) (length, last int) {
	t.Helper()
	b := make([]byte, 4096)
	n, err := g.queue.kernel.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	var number, skip int
	if _, err := fmt.Sscan(string(b[:n]), &number, &skip, &length, &skip, &skip, &skip, &skip, &last); err != nil {
		t.Fatalf("%v: %q", err, b[:n])
	}
	return length, last
}

func TestTwoGates(t *testing.T) {
	h := newHost(t)
	ctx := within(t)
	h.serve(t, "one", ":7000")
	h.serve(t, "two", ":7001")
	one := h.shut(t, ctx, attempts(), anywhere(7000))
	two := h.shut(t, ctx, attempts(), anywhere(7001))
	var ones, twos crowd
	ones.visit(t, ctx, h.client, "10.99.0.1:7000", 3)
	twos.visit(t, ctx, h.client, "10.99.0.1:7001", 5)
	waitHeld(t, one, 3)
	waitHeld(t, two, 5)
	if err := one.Open(); err != nil {
		t.Fatal(err)
	}
	if who := ones.wait(); who["one"] != 3 {
		t.Errorf("served by %v, want 3 by one", who)
	}
	if length, _ := kernelQueue(t, two); length != 5 {
		t.Errorf("%d wait at the other gate, want 5 still", length)
	}
	// Both have the same owner, which lives.
	if err := h.do(func() error { return Clean(ctx) }); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(h.rules(t), two.rules.tag.String()) {
		t.Error("the gate of a process that lives was cleaned away")
	}
	if err := two.Open(); err != nil {
		t.Fatal(err)
	}
	if who := twos.wait(); who["two"] != 5 {
		t.Errorf("served by %v, want 5 by two", who)
	}
}

func TestContextEnds(t *testing.T) {
	h := newHost(t)
	h.serve(t, "one", ":7000")
	ctx, cancel := context.WithCancel(within(t))
	g := h.shut(t, ctx, attempts(), anywhere(7000))
	var visitors crowd
	visitors.visit(t, within(t), h.client, "10.99.0.1:7000", 3)
	waitHeld(t, g, 3)
	cancel()
	if who := visitors.wait(); who["one"] != 3 {
		t.Errorf("served by %v, want 3", who)
	}
	eventually(t, "the rules are gone", func() bool { return !strings.Contains(h.rules(t), tagPrefix) })
	if err := h.do(func() error { _, err := Shut(ctx, []Destination{anywhere(7000)}); return err }); !errors.Is(err, context.Canceled) {
		t.Errorf("shutting with an ended context: %v", err)
	}
}

// Nobody is left to open a gate: it does not keep anybody out, and what is left of it can be cleaned away.
func TestHolderKilled(t *testing.T) {
	h := newHost(t)
	ctx := within(t)
	h.serve(t, "one", ":8080")
	holder := exec.Command("/proc/self/exe")
	holder.Env = append(os.Environ(), holderVar+"=1")
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.do(holder.Start); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	said := make([]byte, 100)
	if n, err := out.Read(said); err != nil || string(said[:n]) != "shut\n" {
		t.Fatalf("the holder says %q, %v", said[:n], err)
	}
	var visitors crowd
	visitors.visit(t, ctx, h.client, "10.99.0.1:8080", 3)
	visitors.visit(t, ctx, h.netns, "[fd99::1]:8080", 3)
	eventually(t, "six wait", func() bool {
		return h.sh(t, "awk '{print $3}' /proc/thread-self/net/netfilter/nfnetlink_queue") == "6\n"
	})
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	holder.Wait()
	if who := visitors.wait(); who["one"] != 6 {
		t.Errorf("served by %v, want 6", who)
	}
	if who, err := h.client.visit(ctx, "10.99.0.1:8080"); err != nil || who != "one" {
		t.Errorf("after the holder's death: %q, %v", who, err)
	}
	if !strings.Contains(h.rules(t), tagPrefix) {
		t.Fatal("no rules are left: there is nothing to clean")
	}
	for range 2 {
		if err := h.do(func() error { return Clean(ctx) }); err != nil {
			t.Fatal(err)
		}
		if rules := h.rules(t); strings.Contains(rules, tagPrefix) {
			t.Errorf("rules left:\n%s", rules)
		}
	}
}

// A container's own address, from the host: the bridge stays, and what waits is not lost with what was on it.
func TestContainersAddress(t *testing.T) {
	h := newHost(t)
	ctx := within(t)
	h.sh(t, `
		ip link add br0 type bridge
		ip addr add 10.77.0.1/24 dev br0
		ip link set br0 up`)
	start := func(name string) (stop func()) {
		ns := newNetNS(t)
		h.sh(t, `
			ip link add v0 type veth peer name eth0 netns %1
			ip link set v0 master br0 up`, ns)
		ns.sh(t, "ip addr add 10.77.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.77.0.1")
		quit := ns.serve(t, name, ":80")
		return func() {
			quit()
			h.sh(t, "ip link del v0")
		}
	}
	stop := start("predecessor")
	if who, err := h.visit(ctx, "10.77.0.2:80"); err != nil || who != "predecessor" {
		t.Fatalf("served by %q, %v", who, err)
	}
	g := h.shut(t, ctx, attempts(), at("10.77.0.2:80"))
	stop()
	var visitors crowd
	visitors.visit(t, ctx, h.netns, "10.77.0.2:80", 3)
	visitors.visit(t, ctx, h.client, "10.77.0.2:80", 3)
	waitHeld(t, g, 6)
	start("successor")
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	if who := visitors.wait(); who["successor"] != 6 {
		t.Errorf("served by %v, want 6 by the successor", who)
	}
}
