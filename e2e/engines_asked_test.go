// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// asked stands where the agent does: it answers every Prepare with one profile, under which getpgrp is held, and lets every held
// call pass.
type asked struct {
	socket, listenerPath string
	supervisor           *supervise.Supervisor
	calls                atomic.Int64 // held since the last answer
	next                 atomic.Uint64
	server               *http.Server

	mu      sync.Mutex
	prepare api.Preparation
	problem error
}

func newAsked(t *testing.T) *asked {
	t.Helper()
	dir, err := os.MkdirTemp("", "wt") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// Rootless containers hand over as their user.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := &asked{socket: filepath.Join(dir, "sock"), listenerPath: filepath.Join(dir, "seccomp")}
	if a.supervisor, err = supervise.New(slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.listenerPath, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(a.listenerPath, 0o666); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		if err := a.supervisor.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	done.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return // closed below
			}
			a.note(a.take(conn))
		}
	})
	t.Cleanup(func() {
		a.hangUp(t)
		cancel()
		l.Close()
		done.Wait()
		a.supervisor.Close()
		a.mu.Lock() // an answer may still be under way
		defer a.mu.Unlock()
		if a.problem != nil {
			t.Error(a.problem)
		}
	})
	return a
}

func (a *asked) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.problem = errors.Join(a.problem, err)
}

// take the listener that a runtime hands over.
func (a *asked) take(conn *net.UnixConn) error {
	defer conn.Close()
	text, control := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4*4))
	n, got, _, _, err := conn.ReadMsgUnix(text, control)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(control[:got])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("%d control messages (%w)", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("%d descriptors (%w)", len(fds), err)
	}
	var state specs.ContainerProcessState
	if err := json.Unmarshal(text[:n], &state); err != nil {
		return err
	}
	getpgrp, _ := syscalls.Number(syscalls.X86_64, "getpgrp")
	return a.supervisor.Add(supervise.Container(a.next.Add(1)), fds[0], func(h supervise.Held) supervise.Verdict {
		if h.Call.Nr == getpgrp {
			a.calls.Add(1)
		}
		return supervise.Verdict{Allow: true}
	})
}

// answer from now on, until hangUp.
func (a *asked) answer(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(a.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	a.calls.Store(0)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/containers/prepare", func(w http.ResponseWriter, r *http.Request) {
		var p api.Preparation
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			a.note(err)
		}
		a.mu.Lock()
		a.prepare = p
		a.mu.Unlock()
		profile, err := json.Marshal(specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: a.listenerPath,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"getpgrp"}, Action: specs.ActNotify}},
		})
		a.note(err)
		a.note(json.NewEncoder(w).Encode(api.Prepared{Profile: profile, Why: "a test"}))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") })
	a.server = &http.Server{Handler: mux}
	go a.server.Serve(l) // until hangUp
}

func (a *asked) hangUp(t *testing.T) {
	t.Helper()
	if a.server == nil {
		return
	}
	if err := a.server.Close(); err != nil {
		t.Error(err)
	}
	a.server = nil
}

func (a *asked) held() int64 { return a.calls.Load() }

func (a *asked) last() api.Preparation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.prepare
}
