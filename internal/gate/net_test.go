// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// patience bounds what ought to happen soon, and decides nothing.
const patience = time.Minute

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newNetNS is a network namespace of the test's, with its loopback interface up.
func newNetNS(t testing.TB) *netns {
	t.Helper()
	type made struct {
		ns  *netns
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = raiseLoopback()
		}
		var ns *netns
		if err == nil {
			ns, err = currentNetNS()
		}
		done <- made{ns, err}
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { m.ns.Close() })
	return m.ns
}

// sh runs commands in a namespace, one a line; %1 stands for a path of another namespace.
func (n *netns) sh(t testing.TB, script string, other ...*netns) string {
	t.Helper()
	for i, o := range other {
		script = strings.ReplaceAll(script, fmt.Sprintf("%%%d", i+1), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), o.file.Fd()))
	}
	var out []byte
	err := n.do(func() (err error) {
		out, err = exec.Command("/bin/sh", "-ec", script).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s\n%s%v", script, out, err)
	}
	return string(out)
}

func (n *netns) shut(t testing.TB, ctx context.Context, with []attempt, to ...Destination) *Gate {
	t.Helper()
	var g *Gate
	err := n.do(func() (err error) {
		g, err = shut(ctx, to, with)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Open(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// serve name on an address until the test ends or stop is called: it says its name to each connection and repeats
// what it gets.
func (n *netns) serve(t testing.TB, name, address string) (stop func()) {
	t.Helper()
	var l net.Listener
	err := n.do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				fmt.Fprintln(c, name)
				io.Copy(c, c)
			})
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { l.Close() }) }
	t.Cleanup(func() { stop(); all.Wait() })
	return stop
}

// visit an address and return who serves it.
func (n *netns) visit(ctx context.Context, address string) (string, error) {
	c, who, err := n.dial(ctx, address)
	if err != nil {
		return "", err
	}
	return who, c.Close()
}

func (n *netns) dial(ctx context.Context, address string) (c net.Conn, who string, err error) {
	err = n.do(func() error {
		// Once more would hide that the first was refused; keep-alive would add packets.
		c, err = (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	who, err = bufio.NewReader(c).ReadString('\n')
	if err != nil {
		c.Close()
		return nil, "", err
	}
	return c, strings.TrimSpace(who), nil
}

// crowd of visits that run at the same time, whose results are had from wait.
type crowd struct {
	all sync.WaitGroup
	mu  sync.Mutex
	who map[string]int
}

func (c *crowd) visit(t testing.TB, ctx context.Context, from *netns, address string, times int) {
	c.run(t, address, times, func(address string) (string, error) { return from.visit(ctx, address) })
}

func (c *crowd) run(t testing.TB, address string, times int, visit func(address string) (string, error)) {
	for range times {
		c.all.Go(func() {
			who, err := visit(address)
			if err != nil {
				t.Errorf("connecting to %s: %v", address, err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.who == nil {
				c.who = map[string]int{}
			}
			c.who[who]++
		})
	}
}

func (c *crowd) wait() map[string]int {
	c.all.Wait()
	return c.who
}

// eventually waits for something that must come true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func waitHeld(t testing.TB, g *Gate, want uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d connections wait", want), func() bool {
		held, _ := g.Waited()
		if held > want {
			t.Fatalf("%d connections wait, want %d", held, want)
		}
		return held == want
	})
}

// host has a client behind a veth pair, and room for a container behind another, whose port 80 is published as 8080.
type host struct {
	*netns
	client *netns
}

func newHost(t testing.TB) host {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "iptables", "ip6tables", "ip")
	h := host{netns: newNetNS(t), client: newNetNS(t)}
	h.sh(t, `
		echo 1 > /proc/sys/net/ipv4/ip_forward
		echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
		ip link add h0 type veth peer name c0 netns %1
		ip addr add 10.99.0.1/24 dev h0
		ip addr add fd99::1/64 dev h0 nodad
		ip link set h0 up`, h.client)
	h.client.sh(t, `
		ip addr add 10.99.0.2/24 dev c0
		ip addr add fd99::2/64 dev c0 nodad
		ip link set c0 up
		ip route add default via 10.99.0.1
		ip -6 route add default via fd99::1`)
	return h
}

// start a container whose service says its name; how it is reached is new each time, as with a real engine.
func (h host) start(t testing.TB, name string, number int) (stop func()) {
	t.Helper()
	ns := newNetNS(t)
	in := strings.NewReplacer("SUBNET", fmt.Sprintf("10.88.%d", number), "SIX", fmt.Sprintf("fd88:%d:", number))
	h.sh(t, in.Replace(`
		ip link add k0 type veth peer name eth0 netns %1
		ip addr add SUBNET.1/24 dev k0
		ip addr add SIX:1/64 dev k0 nodad
		ip link set k0 up`), ns)
	ns.sh(t, in.Replace(`
		ip addr add SUBNET.2/24 dev eth0
		ip addr add SIX:2/64 dev eth0 nodad
		ip link set eth0 up
		ip route add default via SUBNET.1
		ip -6 route add default via SIX:1`))
	quit := ns.serve(t, name, ":80")
	rules := in.Replace(`
		iptables -t nat ACT PREROUTING -p tcp --dport 8080 -m addrtype --dst-type LOCAL -j DNAT --to-destination SUBNET.2:80
		iptables -t nat ACT OUTPUT -p tcp --dport 8080 -m addrtype --dst-type LOCAL -j DNAT --to-destination SUBNET.2:80
		iptables -t nat ACT POSTROUTING -d SUBNET.2 -j MASQUERADE
		ip6tables -t nat ACT PREROUTING -p tcp --dport 8080 -m addrtype --dst-type LOCAL -j DNAT --to-destination [SIX:2]:80
		ip6tables -t nat ACT OUTPUT -p tcp --dport 8080 -m addrtype --dst-type LOCAL -j DNAT --to-destination [SIX:2]:80
		ip6tables -t nat ACT POSTROUTING -d SIX:2 -j MASQUERADE`)
	h.sh(t, strings.ReplaceAll(rules, "ACT", "-A"))
	return func() {
		t.Helper()
		quit()
		h.sh(t, strings.ReplaceAll(rules, "ACT", "-D")+"\nip link del k0")
	}
}

func anywhere(port uint16) Destination { return Destination{Port: port} }

func at(address string) Destination {
	a := netip.MustParseAddrPort(address)
	return Destination{a.Addr(), a.Port()}
}

// rules of the namespace, as all tools tell it.
func (n *netns) rules(t testing.TB) string {
	t.Helper()
	var all strings.Builder
	for _, tool := range []string{"iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"} {
		for line := range strings.Lines(n.sh(t, tool)) {
			if strings.HasPrefix(line, "-A") {
				all.WriteString(line)
			}
		}
	}
	all.WriteString(n.sh(t, "nft list tables | grep whittle || true"))
	return all.String()
}
