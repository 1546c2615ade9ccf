// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// syn is a whole IPv4 packet, with the checksums that a receiver wants.
func syn(src, dst netip.AddrPort, sequence uint32) []byte {
	from, to := src.Addr().As4(), dst.Addr().As4()
	tcp := binary.BigEndian.AppendUint16(nil, src.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, dst.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, sequence)
	tcp = append(tcp, 0, 0, 0, 0, 5<<4, 0x02, 0xff, 0xff, 0, 0, 0, 0)
	pseudo := slices.Concat(from[:], to[:], []byte{0, protoTCP, 0, byte(len(tcp))}, tcp)
	binary.BigEndian.PutUint16(tcp[16:], checksum(pseudo))
	ip := []byte{0x45, 0, 0, byte(20 + len(tcp)), 0, 0, 0x40, 0, 64, protoTCP, 0, 0} // the kernel does its checksum
	return slices.Concat(ip, from[:], to[:], tcp)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// send packets as they are.
func (n *netns) send(t testing.TB, packets ...[]byte) {
	t.Helper()
	err := n.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range packets {
			if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: [4]byte(p[16:20])}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// arrivals makes the namespace count the SYNs for a port that pass its table raw.
func (n *netns) arrivals(t testing.TB, port string) (count func() int) {
	t.Helper()
	n.sh(t, "iptables -A INPUT -p tcp --syn --dport "+port)
	return func() int {
		packets, err := strconv.Atoi(strings.Fields(n.sh(t, "iptables -nvxL INPUT 2>/dev/null | grep dpt:"+port))[0])
		if err != nil {
			t.Fatal(err)
		}
		return packets
	}
}

// A client asks again and again while it waits: one packet goes on.
func TestSentAgain(t *testing.T) {
	h := newHost(t)
	h.serve(t, "one", ":7000")
	arrived := h.arrivals(t, "7000")
	from, to := netip.MustParseAddrPort("10.99.0.2:5555"), netip.MustParseAddrPort("10.99.0.1:7000")
	g := h.shut(t, within(t), attempts(), anywhere(7000))
	h.client.send(t, syn(from, to, 1), syn(from, to, 1), syn(from, to, 1), syn(from, to, 2))
	eventually(t, "all came, and one waits", func() bool {
		length, last := kernelQueue(t, g)
		return last == 4 && length == 1
	})
	if held, dropped := g.Waited(); held != 1 || dropped != 0 {
		t.Errorf("Waited() = %d, %d, want 1, 0", held, dropped)
	}
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	if n := arrived(); n != 1 {
		t.Errorf("%d SYNs went on, want 1", n)
	}
}

// The host's own rules have their say on what waited, as they would without a gate, and see no mark on it.
func TestOtherRulesApply(t *testing.T) {
	h := newHost(t)
	h.serve(t, "one", ":7000")
	arrived := h.arrivals(t, "7000")
	h.sh(t, `
		iptables -t raw -A PREROUTING -s 10.99.0.66 -j DROP
		iptables -A INPUT -m mark ! --mark 0 -p tcp --dport 7000 -j REJECT --reject-with tcp-reset`)
	to := netip.MustParseAddrPort("10.99.0.1:7000")
	for _, a := range working(t, true) {
		g := h.shut(t, within(t), []attempt{a}, anywhere(7000))
		before := arrived()
		h.client.send(t, syn(netip.MustParseAddrPort("10.99.0.66:5555"), to, 1))
		waitHeld(t, g, 1)
		var visitors crowd
		visitors.visit(t, within(t), h.client, "10.99.0.1:7000", 1)
		visitors.visit(t, within(t), h.netns, "10.99.0.1:7000", 1)
		waitHeld(t, g, 3)
		if err := g.Open(); err != nil {
			t.Fatal(err)
		}
		if who := visitors.wait(); who["one"] != 2 {
			t.Errorf("%s: served by %v, want 2", a.fence.name(), who)
		}
		if n := arrived() - before; n != 2 {
			t.Errorf("%s: %d SYNs went on, want 2: the host drops the third", a.fence.name(), n)
		}
	}
}

// Two gates for one service: who passes the first waits at the second.
func TestGateBehindGate(t *testing.T) {
	h := newHost(t)
	ctx := within(t)
	h.serve(t, "one", ":7000")
	first := h.shut(t, ctx, attempts(), anywhere(7000))
	second := h.shut(t, ctx, attempts(), at("10.99.0.1:7000"))
	var visitors crowd
	visitors.visit(t, ctx, h.client, "10.99.0.1:7000", 3)
	waitHeld(t, second, 3)
	if err := second.Open(); err != nil {
		t.Fatal(err)
	}
	waitHeld(t, first, 3)
	if err := first.Open(); err != nil {
		t.Fatal(err)
	}
	if who := visitors.wait(); who["one"] != 3 {
		t.Errorf("served by %v, want 3", who)
	}
}

// What a flood takes is bounded, and who really wants something gets it in the end.
func TestFlood(t *testing.T) {
	h := newHost(t)
	h.serve(t, "one", ":7000")
	to := netip.MustParseAddrPort("10.99.0.1:7000")
	ctx := within(t)
	g := h.shut(t, ctx, attempts(), anywhere(7000))
	const all = 10_000
	var packets [][]byte
	for i := range all {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 0, byte(100 + i%100)}), uint16(1024+i/100))
		packets = append(packets, syn(from, to, uint32(i)))
	}
	h.client.send(t, packets...)
	eventually(t, "each packet is held or counted as dropped", func() bool {
		held, dropped := g.Waited()
		return held+dropped == all
	})
	held, dropped := g.Waited()
	length, _ := kernelQueue(t, g)
	if held > maxHeld || length > maxQueueLength {
		t.Errorf("%d are held, %d in the kernel; the bounds are %d and %d", held, length, maxHeld, maxQueueLength)
	}
	t.Logf("of %d: %d held, %d dropped", all, held, dropped)
	var late crowd
	late.visit(t, ctx, h.client, "10.99.0.1:7000", 1)
	eventually(t, "the late one is dropped", func() bool {
		_, now := g.Waited()
		return now > dropped
	})
	start := time.Now()
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	t.Logf("opening took %v", time.Since(start))
	if who := late.wait(); who["one"] != 1 {
		t.Errorf("the late one was served by %v", who)
	}
}

// BenchmarkDelay is what the gate itself adds to a connection: from Open until the last of those that wait is served.
func BenchmarkDelay(b *testing.B) {
	for _, c := range []struct {
		name    string
		waiting int
	}{{"1", 1}, {"100", 100}} {
		b.Run(c.name, func(b *testing.B) {
			h := newHost(b)
			h.serve(b, "one", ":7000")
			ctx := b.Context()
			var shutting, opening, served []time.Duration
			for b.Loop() {
				start := time.Now()
				g := h.shut(b, ctx, attempts(), anywhere(7000))
				shutting = append(shutting, time.Since(start))
				var visitors crowd
				visitors.visit(b, ctx, h.client, "10.99.0.1:7000", c.waiting)
				waitHeld(b, g, uint64(c.waiting))
				done := make(chan time.Time, 1)
				go func() {
					visitors.wait()
					done <- time.Now()
				}()
				start = time.Now()
				if err := g.Open(); err != nil {
					b.Fatal(err)
				}
				opening = append(opening, time.Since(start))
				served = append(served, (<-done).Sub(start))
			}
			b.ReportMetric(median(shutting), "ms-shut")
			b.ReportMetric(median(opening), "ms-open")
			b.ReportMetric(median(served), "ms-served")
		})
	}
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2]) / float64(time.Millisecond)
}
