// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// manager does with descriptors what systemd does.
type manager struct {
	path string
	conn *net.UnixConn
	done chan struct{}

	mu    sync.Mutex
	store map[string][]*os.File
	ready int
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(t.TempDir(), "notify"), store: map[string][]*os.File{}, done: make(chan struct{})}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	go m.serve()
	t.Cleanup(func() {
		m.conn.Close()
		<-m.done
		for name := range m.store {
			m.remove(name)
		}
	})
	return m
}

func (m *manager) serve() {
	defer close(m.done)
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		var files []*os.File
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, message := range messages {
			fds, _ := unix.ParseUnixRights(&message)
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "stored"))
			}
		}
		m.obey(string(buf[:n]), files)
	}
}

func (m *manager) obey(text string, files []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	words := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		words[key] = value
	}
	switch name := words["FDNAME"]; {
	case words["FDSTORE"] == "1":
		m.store[name] = append(m.store[name], files...)
		return
	case words["FDSTOREREMOVE"] == "1":
		m.remove(name)
	case words["READY"] == "1":
		m.ready++
	}
	for _, f := range files { // a barrier's
		f.Close()
	}
}

func (m *manager) remove(name string) {
	for _, f := range m.store[name] {
		f.Close()
	}
	delete(m.store, name)
}

func (m *manager) names() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.store {
		names = append(names, name)
	}
	return names
}

// start a holder as systemd does, with what is in the store.
func (m *manager) start(t *testing.T, c Config) *exec.Cmd {
	t.Helper()
	m.mu.Lock()
	ready := m.ready
	var files []*os.File
	var names []string
	for name, list := range m.store {
		for _, f := range list {
			files, names = append(files, f), append(names, name)
		}
	}
	m.mu.Unlock()
	// LISTEN_PID is the shell's, which becomes the holder.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", self(t), "holder"}, c.Args()...)...)
	cmd.Env = append(os.Environ(), notifyVar+"="+m.path)
	if len(files) > 0 {
		cmd.ExtraFiles = files
		cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	log := &journal{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill(cmd, unix.SIGKILL)
		if t.Failed() {
			t.Log(log)
		}
	})
	eventually(t, "the holder is ready", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.ready > ready
	})
	return cmd
}

func TestStore(t *testing.T) {
	testenv.NeedRoot(t)
	for name, signal := range map[string]unix.Signal{"ended": unix.SIGTERM, "killed": unix.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			m := newManager(t)
			first := m.start(t, c)
			box, gone, injected := newContainer(t), newContainer(t), newContainer(t)
			box.give(t, c.Listener, "one")
			gone.give(t, c.Listener, "two")
			client, list := listeners(t, c, 2)
			id, err := client.Keep(Kept{Container: "three", Injected: true, FD: injected.fd})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "all are stored", func() bool { return len(m.names()) == 3 })
			for _, k := range list {
				unix.Close(k.FD)
			}
			client.Close()
			box.call()
			kill(first, signal)

			gone.end() // while there is no holder
			second := m.start(t, c)
			client, list = listeners(t, c, 2)
			byName := map[string]Kept{}
			for _, k := range list {
				byName[k.Container] = k
			}
			if k := byName["three"]; len(list) != 2 || !k.Injected || k.ID != id {
				t.Errorf("got %+v", list)
			}
			if k := byName["one"]; k.Metadata != "meta" || k.Annotations["a"] != "b" || k.Exec {
				t.Errorf("got %+v", k)
			}
			if clean := signal == unix.SIGTERM; client.Unclean() == clean || clean && client.Agents() != 1 {
				t.Errorf("unclean %v, agents %d", client.Unclean(), client.Agents())
			}
			answer(t, byName["one"].FD)
			box.wants(t, letThrough)
			// What came is kept under an id of its own, what goes is taken out of the store.
			if other, err := client.Keep(Kept{Container: "four", FD: injected.fd}); err != nil || other == id || other == byName["one"].ID {
				t.Errorf("a new one: %d, %v", other, err)
			}
			box.end()
			if err := client.Drop(id); err != nil {
				t.Error(err)
			}
			eventually(t, "one is stored", func() bool { return len(m.names()) == 1 })
			kill(second, signal)
		})
	}
}

// Refusals that no agent was told of survive a restart too.
func TestStoredCounts(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	c.Wait = time.Millisecond
	m := newManager(t)
	first := m.start(t, c)
	box := newContainer(t)
	box.give(t, c.Listener, "one")
	box.call()
	box.wants(t, unix.EPERM)
	kill(first, unix.SIGTERM)
	m.start(t, c)
	client := dial(t, c)
	if r := client.Refused(); len(r) != 1 || r[0].Count != 1 || r[0].Container != "one" {
		t.Errorf("got %+v", r)
	}
}

// An agent waits for systemd to bring the holder back, instead of starting one that would be in its way.
func TestStartWaitsForSystemd(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	m := newManager(t)
	kill(m.start(t, c), unix.SIGKILL)
	if lockText(c) == "" {
		t.Fatal("the lock's file is gone")
	}
	started := make(chan error)
	go func() {
		client, err := Start(t.Context(), "/no/such/program", c)
		if err == nil {
			client.Close()
		}
		started <- err
	}()
	m.start(t, c)
	if err := <-started; err != nil {
		t.Error(err)
	}
}

func TestNoStore(t *testing.T) {
	t.Setenv(notifyVar, "vsock:2:1234")
	if _, err := openStore(); err == nil {
		t.Error("a socket that is no unix socket was taken")
	}
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDNAMES", "a:b")
	for _, count := range []string{"", "-1", "x", "1000000000"} {
		t.Setenv("LISTEN_FDS", count)
		if in := takeInherited(); in != nil {
			t.Errorf("LISTEN_FDS=%s: got %v", count, in)
		}
	}
}
