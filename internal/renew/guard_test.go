// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/internal/workload"
	"golang.org/x/sys/unix"
)

// alone is an engine whose only container is this process.
type alone struct{ engine.Maker }

func (alone) Name() string { return "fake" }

func (alone) Inspect(context.Context, string) (engine.Container, error) {
	return engine.Container{Container: workload.Container{Engine: "fake", ID: "aaaa", PID: os.Getpid()}, State: engine.Running}, nil
}

func (a alone) Blueprint(ctx context.Context, id string) (engine.Blueprint, error) {
	c, err := a.Inspect(ctx, id)
	return engine.Blueprint{Container: c, NetworkKept: true}, err
}

// However a guard ends, who listens is left as he was, and gets the connections.
func TestGuardEnds(t *testing.T) {
	testenv.NeedBPF(t)
	var one net.ListenConfig
	one.SetMultipathTCP(false)
	l, err := one.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}
	shares := func() (shares int) {
		raw, err := l.(syscall.Conn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { shares, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT) })
		}
		if err != nil {
			t.Error(err)
		}
		return shares
	}
	r := &Runner{Engine: alone{}}
	for _, tt := range []struct {
		name string
		end  func(*Guard) error
	}{
		{"nobody takes over", (*Guard).Close},
		{"the other does not start", func(g *Guard) error {
			no := errors.New("no such image")
			_, _, err := g.Hand(t.Context(), time.Minute, func(context.Context) (string, error) { return "", no })
			if errors.Is(err, no) {
				err = nil
			}
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := r.Stand(t.Context(), "web", at)
			if err != nil {
				t.Fatal(err)
			}
			if shares() != 1 {
				t.Error("nothing stands beside it")
			}
			if err := tt.end(g); err != nil {
				t.Error(err)
			}
			if shares() != 0 {
				t.Error("others can listen beside it")
			}
			c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			got.Close()
		})
	}
}
