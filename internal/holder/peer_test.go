// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// as another user, on a thread that ends afterwards: the kernel notes who connects.
func as(uid int, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			panic(errno)
		}
		f()
	}()
	<-done
}

// Whoever may connect to the runtimes' socket gets nothing kept that is not one listener with a proper state, and keeps nobody
// from handing over.
func TestHostilePeers(t *testing.T) {
	testenv.NeedRoot(t)
	box := newContainer(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	long := bytes.Repeat([]byte(" "), 1<<20)
	many := make([]int, 200)
	for i := range many {
		many[i] = box.fd
	}
	text := func(s string) []byte { return []byte(s) }
	for _, tt := range []struct {
		name string
		data []byte
		fds  []int
		want string // in the log
	}{
		{"no descriptor", state("one"), nil, "no descriptor came along"},
		{"two descriptors", state("one"), []int{box.fd, box.fd}, "more than one descriptor"},
		{"200 descriptors", state("one"), many, "more than one descriptor"},
		{"no listener", state("one"), []int{int(null.Fd())}, "no seccomp listener"},
		{"1 MB of JSON", append(long, state("one")...), []int{box.fd}, "more than a state"},
		{"half a message", state("one")[:40], []int{box.fd}, "unexpected end"},
		{"two messages", append(state("one"), state("two")...), []int{box.fd}, "invalid character"},
		{"not JSON", text("hello"), []int{box.fd}, "invalid character"},
		{"another shape", text(`[1,2,3]`), []int{box.fd}, "cannot unmarshal"},
		{"deep", bytes.Repeat(text("["), maxState), []int{box.fd}, "max depth"},
		{"no state", text(`{}`), []int{box.fd}, "it names 0 descriptors"},
		{"two names", text(`{"fds":["seccompFd","seccompFd"],"state":{"id":"one"}}`), []int{box.fd}, "it names 2 descriptors"},
		{"no id", text(`{"fds":["seccompFd"],"state":{}}`), []int{box.fd}, "id is empty"},
		{"a path for an id", text(`{"fds":["seccompFd"],"state":{"id":"../one"}}`), []int{box.fd}, "odd characters"},
		{"an id for a terminal", text(`{"fds":["seccompFd"],"state":{"id":"\u001b[31m"}}`), []int{box.fd}, "odd characters"},
		{"a negative pid", text(`{"fds":["seccompFd"],"pid":-1,"state":{"id":"one"}}`), []int{box.fd}, "no process"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(t)
			log, _ := serve(t, c)
			handOver(t, c.Listener, tt.data, tt.fds...)
			eventually(t, "the complaint "+tt.want, func() bool { return strings.Contains(log.String(), tt.want) })
			client := dial(t, c)
			handOver(t, c.Listener, state("good"), box.fd)
			if k := next(t, client); k.Container != "good" {
				t.Errorf("kept: %+v", k)
			}
			if list := client.Listeners(); len(list) != 0 {
				t.Errorf("kept: %+v", list)
			}
		})
	}
}

// A runtime need not close its end.
func TestPeerThatStays(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	client := dial(t, c)
	box := newContainer(t)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.Listener, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data := bytes.Replace(state("one"), []byte(`"meta"`), []byte(`"}]\"}"`), 1)
	if _, _, err := conn.WriteMsgUnix(data[:20], unix.UnixRights(box.fd), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(data[20:]); err != nil {
		t.Fatal(err)
	}
	if k := next(t, client); k.Metadata != `}]"}` {
		t.Errorf("got %+v", k)
	}
}

// One descriptor in each of two packets is two.
func TestDescriptorsInTwoPackets(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	log, _ := serve(t, c)
	box := newContainer(t)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.Listener, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, part := range [][]byte{state("one")[:10], state("one")[10:]} {
		if _, _, err := conn.WriteMsgUnix(part, unix.UnixRights(box.fd), nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a complaint", func() bool { return strings.Contains(log.String(), "more than one descriptor") })
}

// silent connections of one user, until the holder takes no more of them.
func silent(t *testing.T, path string, count int) (open int) {
	t.Helper()
	var conns []net.Conn
	for range count {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Errorf("connect: %v", err)
			return 0
		}
		conns = append(conns, conn)
		t.Cleanup(func() { conn.Close() })
	}
	for _, conn := range conns {
		// Those that it does not want are closed at once, the others after some seconds of patience.
		conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); os.IsTimeout(err) {
			open++
		}
	}
	return open
}

func TestSilentPeers(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	_, _ = serve(t, c)
	if err := os.Chmod(c.Listener, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(c.Listener[:len(c.Listener)-2], 0o755); err != nil {
		t.Fatal(err)
	}
	as(65534, func() {
		if open := silent(t, c.Listener, 1000); open > maxPeersByUser {
			t.Errorf("%d connections of one user are open, want %d at most", open, maxPeersByUser)
		}
	})
	client := dial(t, c)
	box := newContainer(t)
	box.give(t, c.Listener, "one")
	next(t, client)

	// A slow loris is cut off in the middle of its word.
	conn, err := net.Dial("unix", c.Listener)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "it is cut off", func() bool {
		_, err := conn.Write([]byte(" "))
		return err != nil
	})
}

func TestListenersOfAUser(t *testing.T) {
	testenv.NeedRoot(t)
	box := newContainer(t)
	table := newTable()
	add := func(uid uint32, name string) error {
		_, _, err := table.add(Kept{Container: name, UID: uid, FD: box.fd})
		return err
	}
	for i := range maxKeptByUser {
		if err := add(1000, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(1000, "one more"); err == nil {
		t.Error("one user may fill the table")
	}
	for _, uid := range []uint32{0, 1001} {
		if err := add(uid, fmt.Sprint("of ", uid)); err != nil {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
	for _, l := range table.byID {
		table.remove(l)
	}
	if len(table.byID)+len(table.byContainer)+len(table.byUser) != 0 {
		t.Errorf("left: %+v", table)
	}
	table.max = 1
	if add(0, "a") != nil || add(0, "b") == nil {
		t.Error("the limit does not hold for root")
	}
}

// Nobody but root connects to the control socket, even where its file has been opened.
func TestControlIsRoots(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	if info, err := os.Stat(c.Control); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, path := range []string{c.Control[:len(c.Control)-2], c.Control} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	as(65534, func() {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: c.Control}); err != nil {
			t.Error(err)
		}
		_ = send(fd, message{Op: opHello, Version: protocolVersion}, -1)
		if n, _ := unix.Read(fd, make([]byte, 100)); n > 0 {
			t.Error("it was greeted")
		}
	})
}

// What an agent says is bounded and checked too.
func TestOddAgents(t *testing.T) {
	testenv.NeedRoot(t)
	c := config(t)
	serve(t, c)
	good := dial(t, c)
	for _, text := range []string{"", "{}", "hello", `{"op":"bye"}`, `{"op":"hello","version":99}`, `{"op":"keep"}`, `{"op":"drop","id":1}`, strings.Repeat("x", maxMessage+1)} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: c.Control}); err != nil {
			t.Fatal(err)
		}
		_, _ = unix.Write(fd, []byte(text)) // it may refuse to take so much
		if n, _ := unix.Read(fd, make([]byte, 100)); n > 0 {
			t.Errorf("%.40q was answered", text)
		}
		unix.Close(fd)
	}
	box := newContainer(t)
	if _, err := good.Keep(Kept{Container: "one", FD: box.fd}); err != nil {
		t.Errorf("the agent was disturbed: %v", err)
	}
}

func TestAnnotationsAreShortened(t *testing.T) {
	k := Kept{Container: "one", Annotations: map[string]string{"long": strings.Repeat("x", maxAnnotation+1), "short": "x"}}
	for i := range 100 {
		k.Annotations[fmt.Sprint("some-", i)] = strings.Repeat("<", 500)
	}
	if err := k.check(); err != nil {
		t.Fatal(err)
	}
	size := 0
	for key, value := range maps.All(k.Annotations) {
		size += len(key) + len(value)
	}
	if k.Annotations["long"] != "" || size > maxAnnotations || size < maxAnnotations/2 {
		t.Errorf("%d bytes of annotations", size)
	}
}

// Whatever passes as a state can be told to an agent.
func FuzzParseState(f *testing.F) {
	f.Add(state("one"))
	f.Add([]byte(`{"fds":["seccompFd"],"metadata":"\u0000","state":{"id":"a","annotations":{"\u0000":"\u0000"}}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := parseState(data)
		if err != nil {
			return
		}
		text, err := encode(message{Op: opKept, Kept: &k})
		if err != nil {
			t.Fatal(err)
		}
		var m message
		if err := json.Unmarshal(text, &m); err != nil || m.Kept.Container != k.Container {
			t.Errorf("%q came back as %+v, %v", text, m.Kept, err)
		}
	})
}

// The largest state there can be fits a message.
func TestLargestStateFits(t *testing.T) {
	k := Kept{
		Container: strings.Repeat("x", maxContainer), Metadata: strings.Repeat("\x01", maxMetadata),
		Bundle: strings.Repeat("\"", maxBundle), PID: 1 << 22, Annotations: map[string]string{}, Received: time.Now(),
	}
	for i := range 8 {
		k.Annotations[string(rune(i))] = strings.Repeat("\x01", maxAnnotation-1)
	}
	if err := k.check(); err != nil || len(k.Annotations) != 8 {
		t.Fatal(len(k.Annotations), err)
	}
	if _, err := encode(message{Op: opKept, Kept: &k}); err != nil {
		t.Error(err)
	}
}
