// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/workload"
)

// What was not asked for is not waited for at the successor: whoever got into the predecessor may listen there.
func TestNeedsPorts(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, tt := range []struct {
		name  string
		ports []netip.AddrPort
		l     netip.AddrPort
		kept  bool
		want  bool
	}{
		{"all", nil, at("127.0.0.1:5"), true, true},
		{"one that is needed", []netip.AddrPort{at("[::]:80")}, at("[::]:80"), true, true},
		{"another port", []netip.AddrPort{at("[::]:80")}, at("[::]:81"), true, false},
		{"another address", []netip.AddrPort{at("[::]:80")}, at("127.0.0.2:80"), true, false},
		{"another address in a network of its own", []netip.AddrPort{at("10.0.0.7:80")}, at("10.0.0.8:80"), false, true},
		{"another port in a network of its own", []netip.AddrPort{at("10.0.0.7:80")}, at("10.0.0.7:81"), false, false},
	} {
		if got := (Request{Ports: tt.ports}).needs(tt.l, tt.kept); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := netip.MustParseAddrPort(l.Addr().String())
	if got := Listens(engine.Container{Container: workload.Container{PID: os.Getpid()}}); !slices.Contains(got, want) {
		t.Errorf("%v, want %v among them", got, want)
	}
	if got := Listens(engine.Container{}); got != nil {
		t.Errorf("a container without a process listens on %v", got)
	}
}
