// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
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

func (n *netns) counter(t testing.TB, name string) string {
	t.Helper()
	return n.sh(t, "nstat -asz "+name+" | awk 'NR==2 {print $2}'")
}

// A client asks again and again while it waits: one packet goes on.
func TestSentAgain(t *testing.T) {
	h := newHost(t)
	testenv.NeedTool(t, "nstat")
	h.serve(t, "one", ":7000")
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
	before := h.counter(t, "TcpInSegs")
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	// The SYN, and the client's answer to a connection that it knows nothing of.
	eventually(t, "the packet goes on", func() bool { return h.counter(t, "TcpInSegs") != before })
	if resets := h.counter(t, "TcpPassiveOpens"); resets == "" {
		t.Error("nothing is counted")
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
