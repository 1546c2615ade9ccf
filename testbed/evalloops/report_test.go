// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"net"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/testbed/load"
)

func TestRatio(t *testing.T) {
	r := rates{unprotected: {100, 300, 200}, whittled: {150, 100, 120}}
	for _, test := range []struct {
		name        string
		of          rates
		kind        kind
		rate, ratio string
	}{
		{"measured", r, whittled, "120", "0.600"},
		{"not measured", r, hardened, "-", "-"},
		{"nothing was", rates{}, whittled, "-", "-"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, part := rate(test.of, test.kind), ratio(test.of, test.kind); got != test.rate || part != test.ratio {
				t.Errorf("%s, %s; want %s, %s", got, part, test.rate, test.ratio)
			}
		})
	}
}

// Who is refused, and who is cut off, is told apart.
func TestLook(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := load.Target{Addr: l.Addr().String()}
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	var record load.Record
	talk := func(_ net.Conn, r *bufio.Reader, _ int) error { _, err := r.ReadByte(); return err }
	ask := load.Load{PerConnection: 1, For: 50 * time.Millisecond, Record: &record}
	began := time.Now()
	load.Run(t.Context(), target, talk, ask)
	cut := time.Now()
	l.Close()
	<-hung
	load.Run(t.Context(), target, talk, ask)
	first, all := look(&record, began, cut), look(&record, began, time.Now())
	if first.refused > 1 || first.failed == 0 || all.refused < 2 || all.failed < first.failed-1 || all.requests != all.refused+all.failed || first.silence != first.took {
		t.Errorf("before it stopped to listen %s (%v); in all %s", first, first.took, all)
	}
}
