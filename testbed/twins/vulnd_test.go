// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/load"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// builds are made once, where the checkout keeps them.
func built(t *testing.T, build func(context.Context, string) (Twin, error)) Twin {
	t.Helper()
	dir, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	twin, err := build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return twin
}

// served is a service without a container.
type served struct {
	load.Target
	cmd    *exec.Cmd
	stderr *log
	ended  chan struct{}
}

// log of a process that is read while it is written.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// serve a program of a twin until the test ends.
func serve(t *testing.T, twin Twin, program string) *served {
	t.Helper()
	port := freePort(t)
	s := &served{Target: twin.Target(port), stderr: &log{}, ended: make(chan struct{})}
	s.cmd = exec.Command(program, twin.Command(port)...)
	s.cmd.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0")
	s.cmd.Stderr = s.stderr
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.ended
	})
	for {
		err := s.Ask(t.Context(), twin.Talk())
		if err == nil {
			return s
		}
		select {
		case <-s.ended:
			t.Fatalf("%s has ended: %v; %s", program, err, s.stderr)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestVulndExploits(t *testing.T) {
	testenv.NeedGCC(t)
	twin := built(t, Vulnd)
	for _, exploit := range twin.Exploits() {
		t.Run(exploit.Name, func(t *testing.T) {
			production := serve(t, twin, twin.program)
			if shell, err := exploit.Run(t.Context(), production.Target); !shell {
				t.Fatalf("production: no shell: %v; %s", err, production.stderr)
			}
			<-production.ended // the shell took its place, and ended
			oracle := serve(t, twin, twin.hardened)
			shell, err := exploit.Run(t.Context(), oracle.Target)
			if shell || err == nil {
				t.Fatalf("the sanitized build executes a shell: %v, %v", shell, err)
			}
			<-oracle.ended
			if want := exploit.Reported; !strings.Contains(oracle.stderr.String(), want) {
				t.Errorf("the sanitizer says %q, want %q", oracle.stderr, want)
			}
			// In this machine's symbols, so that a report says where.
			if !strings.Contains(oracle.stderr.String(), "vulnd.c:") {
				t.Errorf("the report names no line:\n%s", oracle.stderr)
			}
		})
	}
}

func TestVulndServes(t *testing.T) {
	testenv.NeedGCC(t)
	twin := built(t, Vulnd)
	for name, program := range map[string]string{"production": twin.program, "oracle": twin.hardened} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, twin, program)
			for _, talk := range twin.Honest() {
				if err := s.Ask(t.Context(), talk); err != nil {
					t.Error(err)
				}
			}
			for _, l := range []load.Load{
				{Workers: 4, For: 300 * time.Millisecond, PerConnection: 1},
				{Workers: 4, For: 300 * time.Millisecond},
			} {
				stats := load.Run(t.Context(), s.Target, twin.Talk(), l)
				t.Log(stats)
				if stats.Failed > 0 || stats.Stale > 0 || stats.Requests < 10 {
					t.Errorf("%+v: %v", l, stats)
				}
			}
		})
	}
}

// TestVulndDrains: what is connected when it is told to stop is answered.
func TestVulndDrains(t *testing.T) {
	testenv.NeedGCC(t)
	twin := built(t, Vulnd)
	s := serve(t, twin, twin.program)
	conn, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := s.Ask(t.Context(), twin.Talk()); err != nil { // the connection before this one has been accepted
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := twin.Talk()(conn, bufio.NewReader(conn), 0); !errors.Is(err, load.ErrLast) {
		t.Errorf("a request after the signal: %v", err)
	}
	<-s.ended
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ends with %d: %s", code, s.stderr)
	}
}
