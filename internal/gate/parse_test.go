// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseSYN(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.0.0.1:1234"), netip.MustParseAddrPort("10.0.0.2:80")
	four := syn(src, dst, 7)
	edit := func(b []byte, at int, v ...byte) []byte {
		b = slices.Clone(b)
		copy(b[at:], v)
		return b
	}
	src6, dst6 := netip.MustParseAddrPort("[fd00::1]:1234"), netip.MustParseAddrPort("[fd00::2]:80")
	six := func(next byte, extensions ...byte) []byte {
		from, to := src6.Addr().As16(), dst6.Addr().As16()
		return slices.Concat([]byte{0x60, 0, 0, 0, 0, 0, next, 64}, from[:], to[:], extensions, four[20:])
	}
	for _, c := range []struct {
		name     string
		packet   []byte
		ok       bool
		src, dst netip.AddrPort
	}{
		{"IPv4", four, true, src, dst},
		{"with options", slices.Concat(edit(four[:20], 0, 0x46), []byte{1, 1, 1, 1}, four[20:]), true, src, dst},
		{"with ECN", edit(four, 33, 0xc2), true, src, dst},
		{"with ACK", edit(four, 33, 0x12), false, src, dst},
		{"a reset", edit(four, 33, 0x04), false, src, dst},
		{"a later fragment", edit(four, 6, 0, 1), false, src, dst},
		{"UDP", edit(four, 9, 17), false, src, dst},
		{"cut off", four[:33], false, src, dst},
		{"a header too short", edit(four, 0, 0x44), false, src, dst},
		{"a header beyond the end", edit(four, 0, 0x4f)[:40], false, src, dst},
		{"IPv6", six(6), true, src6, dst6},
		{"with a hop-by-hop header", six(0, 6, 0, 0, 0, 0, 0, 0, 0), true, src6, dst6},
		{"with two headers", six(60, 43, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0), true, src6, dst6},
		{"with a header beyond the end", six(60, 6, 255, 0, 0, 0, 0, 0, 0), false, src6, dst6},
		{"with endless headers", six(60, slices.Repeat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, 20)...), false, src6, dst6},
		{"a fragment", six(44, 6, 0, 0, 0, 0, 0, 0, 0), false, src6, dst6},
		{"nothing", nil, false, src, dst},
		{"another version", []byte{0x50}, false, src, dst},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dst, ok := parseSYN(c.packet)
			if ok != c.ok || (ok && (src != c.src || dst != c.dst)) {
				t.Errorf("parseSYN(%x) = %v, %v, %t, want %v, %v, %t", c.packet, src, dst, ok, c.src, c.dst, c.ok)
			}
		})
	}
}

func FuzzParseSYN(f *testing.F) {
	f.Add(syn(netip.MustParseAddrPort("10.0.0.1:1234"), netip.MustParseAddrPort("10.0.0.2:80"), 7))
	f.Add(append(make([]byte, 40), 60, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, dst, ok := parseSYN(b)
		if ok && (!src.Addr().IsValid() || src.Addr().Is4() != dst.Addr().Is4()) {
			t.Errorf("parseSYN(%x) = %v, %v", b, src, dst)
		}
	})
}

func packetMessage(id uint32, payload []byte) []byte {
	return message(msgPacket, 0, 1, attribute{attrPacketHeader, append(number(id), 8, 0, 1)},
		attribute{attrMark, number(id + 1)}, attribute{attrInDevice, number(id + 2)}, attribute{attrPayload, payload})
}

func FuzzMessages(f *testing.F) {
	f.Add(packetMessage(1, []byte("abc")))
	f.Add(slices.Concat(packetMessage(1, []byte("abcd")), packetMessage(2, nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for _, content := range messages(b) {
			n++
			parseError(content)
			if p, ok := parsePacket(content); ok && len(p.payload) > len(b) {
				t.Errorf("a payload of %d bytes in %d", len(p.payload), len(b))
			}
		}
		if n > len(b)/messageHeader {
			t.Errorf("%d messages in %d bytes", n, len(b))
		}
	})
}

func TestMessages(t *testing.T) {
	b := slices.Concat(packetMessage(1, []byte("abcd")), packetMessage(2, []byte("ef")))
	var got []string
	for kind, content := range messages(b) {
		p, ok := parsePacket(content)
		got = append(got, fmt.Sprintf("%d %t %+v", kind, ok, p))
	}
	want := []string{
		fmt.Sprintf("%d true %+v", msgPacket, packet{id: 1, hook: 1, mark: 2, in: 3, payload: []byte("abcd")}),
		fmt.Sprintf("%d true %+v", msgPacket, packet{id: 2, hook: 1, mark: 3, in: 4, payload: []byte("ef")}),
	}
	if !slices.Equal(got, want) {
		t.Errorf("messages = %q, want %q", got, want)
	}
	refusal := binary.NativeEndian.AppendUint32(nil, math.MaxUint32-uint32(unix.EBUSY)+1)
	if errno, ok := parseError(refusal); !ok || errno != unix.EBUSY {
		t.Errorf("parseError = %v, %t, want EBUSY", errno, ok)
	}
}

func TestWaiting(t *testing.T) {
	of := func(port uint16) connection {
		return connection{src: netip.AddrPortFrom(netip.IPv6Loopback(), port)}
	}
	w := waiting{limit: 2, packet: map[connection]queued{}}
	for _, c := range []struct {
		name string
		port uint16
		id   uint32
		drop uint32
		old  bool
	}{
		{"the first", 1, 10, 0, false},
		{"the second", 2, 11, 0, false},
		{"the first again takes its own place", 1, 12, 10, true},
		{"no room", 3, 13, 13, true},
		{"the second again, when there is no room", 2, 14, 11, true},
	} {
		if drop, old := w.add(of(c.port), queued{id: c.id}); old != c.old || (old && drop != c.drop) {
			t.Errorf("%s: add = %d, %t, want %d, %t", c.name, drop, old, c.drop, c.old)
		}
	}
	if w.held != 2 || w.dropped != 1 {
		t.Errorf("held %d, dropped %d, want 2, 1", w.held, w.dropped)
	}
	if ids := w.end(); !slices.Equal(ids, []queued{{id: 12}, {id: 14}}) {
		t.Errorf("end = %v, want 12 and 14", ids)
	}
}

func TestNormal(t *testing.T) {
	got, err := normal([]Destination{
		{netip.MustParseAddr("::ffff:10.0.0.1"), 80}, {netip.IPv4Unspecified(), 80}, {netip.IPv6Unspecified(), 80},
		{netip.MustParseAddr("10.0.0.1"), 80}, {netip.MustParseAddr("fe80::1%eth0"), 80}, {Port: 80},
	})
	want := []Destination{{Port: 80}, {netip.MustParseAddr("10.0.0.1"), 80}, {netip.MustParseAddr("fe80::1"), 80}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("normal = %v, %v, want %v", got, err, want)
	}
	for name, bad := range map[string][]Destination{
		"none": nil, "no port": {{}}, "too many": make([]Destination, maxDestinations+1),
	} {
		if _, err := normal(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTag(t *testing.T) {
	mine, err := newTag()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := parseTag(mine.String()); !ok || got != mine {
		t.Errorf("parseTag(%s) = %v, %t", mine, got, ok)
	}
	for _, s := range []string{"", "whittle-gate", "whittle-gate-1-2-3", "whittle-gate-1-2-3-4-5", "whittle-gate-1-2-3-x",
		"whittle-gate-01-2-3-4", "whittle-gate-1-99999999999999999999-3-4", "my-whittle-gate-1-2-3-4"} {
		if _, ok := parseTag(s); ok {
			t.Errorf("parseTag(%q) takes it for ours", s)
		}
	}
	for _, c := range []struct {
		name string
		edit func(*tag)
		want bool
	}{
		{"itself", func(*tag) {}, false},
		{"another process with the number", func(t *tag) { t.start++ }, true},
		{"no process", func(t *tag) { t.pid = math.MaxInt32 }, true},
		{"of another pid namespace", func(t *tag) { t.pid, t.pidns = math.MaxInt32, 1 }, false},
		{"its parent", func(t *tag) { t.pid = os.Getppid(); t.start, _, _ = startOf(t.pid) }, false},
	} {
		other := mine
		c.edit(&other)
		if got := other.dead(); got != c.want {
			t.Errorf("%s: dead() = %t", c.name, got)
		}
	}
}

func TestParseSaved(t *testing.T) {
	of := func(t tag) bool { return t.n != 5 }
	const spec = `-p tcp -m tcp --dport 99 --tcp-flags FIN,SYN,RST,ACK SYN -m comment --comment %s -j NFQUEUE --queue-num 7 --queue-bypass`
	rule := func(tag string) string { return fmt.Sprintf(spec, tag) }
	out := strings.Join([]string{
		"# Generated", "*nat", "[1:60] -A PREROUTING " + rule("whittle-gate-1-2-3-4"), "COMMIT",
		"*raw", ":PREROUTING ACCEPT [0:0]",
		"[7:420] -A PREROUTING " + rule("whittle-gate-1-2-3-4"),
		"[8:420] -A OUTPUT " + rule(`"whittle-gate-1-2-3-4"`),
		"[9:420] -A OUTPUT " + rule("whittle-gate-1-2-3-5"),
		"[9:420] -A OUTPUT " + rule("whittle-gate-of-mine"),
		"[9:420] -A CHAIN " + rule("whittle-gate-1-2-3-4"),
		`[9:420] -A OUTPUT -m comment --comment "see whittle-gate-1-2-3-4" -j ACCEPT`,
		"[9:420] -A OUTPUT -m comment --comment", "[9:420] -A ", "COMMIT",
	}, "\n")
	want := []savedRule{
		{"PREROUTING " + rule("whittle-gate-1-2-3-4"), 7}, {"OUTPUT " + rule(`"whittle-gate-1-2-3-4"`), 8},
	}
	if got := parseSaved(out, of); !slices.Equal(got, want) {
		t.Errorf("parseSaved = %+v, want %+v", got, want)
	}
}

func FuzzParseSaved(f *testing.F) {
	f.Add("*raw\n[1:2] -A OUTPUT -m comment --comment whittle-gate-1-2-3-4 -j DROP\nCOMMIT")
	f.Fuzz(func(t *testing.T, out string) {
		for _, r := range parseSaved(out, func(tag) bool { return true }) {
			if !strings.Contains(r.spec, tagPrefix) || strings.Contains(r.spec, "\n") {
				t.Errorf("a rule %q", r.spec)
			}
		}
	})
}

const listing = `table inet whittle_gate { # handle 3
	chain prerouting { # handle 1
		type filter hook prerouting priority -301; policy accept;
		fib daddr type 2 tcp dport 99 tcp flags & (0x1 | 0x2 | 0x4 | 0x10) == 0x2 counter packets 5 bytes 300 queue num 7 bypass comment "whittle-gate-1-2-3-4" # handle 4
		tcp dport 1 drop comment "whittle-gate-x" # handle 5
	}

	chain output { # handle 2
		type filter hook output priority -301; policy accept;
		ip daddr 10.0.0.1 tcp dport 99 counter packets 0 bytes 0 drop comment "whittle-gate-1-2-3-4" # handle 6
	}
}
`

func TestParseListing(t *testing.T) {
	ours := tag{1, 2, 3, 4}
	want := []listedRule{
		{"prerouting", 4, 5, ours, true}, {"prerouting", 5, 0, tag{}, false}, {"output", 6, 0, ours, true},
	}
	got, err := parseListing(listing)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("parseListing = %+v, %v, want %+v", got, err, want)
	}
}

func FuzzParseListing(f *testing.F) {
	f.Add(listing)
	f.Fuzz(func(t *testing.T, out string) {
		if rules, err := parseListing(out); err == nil && len(rules) > strings.Count(out, "\n")+1 {
			t.Errorf("%d rules in %q", len(rules), out)
		}
	})
}
