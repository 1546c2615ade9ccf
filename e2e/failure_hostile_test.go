// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
)

// TestPIDOfAnotherProcess: a container ends while nobody looks, and its pid is given to a stranger. The next agent does
// not touch that.
func TestPIDOfAnotherProcess(t *testing.T) {
	ms := newMasters(t)
	s := ms.start(t, "gone")
	s.supervised()
	ms.d.end(unix.SIGKILL)
	kill(t, s.pid)
	s.awaitEnd()
	stranger := processWithPID(t, s.pid)
	ms.d.start(noEngine...)
	eventually(t, "the record is closed", func() (bool, string) {
		status := ms.d.status()
		for _, c := range status.Containers {
			if c.PID == s.pid {
				t.Fatalf("the agent takes a stranger for its container: %+v", c)
			}
		}
		return len(listenersOf(ms.d.holder())) == 0, ms.d.log.String()
	})
	next := ms.start(t, "next") // whatever the agent does at its start is done by then
	next.works(1)
	next.quit()
	ms.d.forgotten()
	text, err := os.ReadFile(filepath.Join("/proc", stranger, "status"))
	if err != nil || !strings.Contains(string(text), "Seccomp_filters:\t0\n") {
		t.Errorf("the stranger: %v\n%s", err, text)
	}
	if left := ms.left(); len(left) > 0 {
		t.Errorf("records are left: %+v", left)
	}
}

// processWithPID starts a process, in a mount namespace of its own, that has a pid which is free.
func processWithPID(t *testing.T, pid int) string {
	t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; { // what had it may not have been reaped yet
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("unshare", "--mount", "sleep", "600") // which becomes sleep
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() } // it is killed: what Wait says is known
		if cmd.Process.Pid == pid {
			t.Cleanup(end)
			return strconv.Itoa(pid)
		}
		end()
	}
	t.Fatalf("pid %d cannot be had again", pid)
	return ""
}

// TestForgedListeners: what is handed over for a container of another is not taken for its listener, and other users
// cannot hand over anything.
func TestForgedListeners(t *testing.T) {
	ms := newMasters(t)
	s := ms.start(t, "honest")
	s.works(1)
	socket := filepath.Join(filepath.Dir(ms.d.socket), "seccomp.sock")
	if err := os.Chmod(filepath.Dir(ms.d.socket), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{socket, filepath.Join(filepath.Dir(socket), "holder.sock")} {
		cmd := exec.Command(ms.d.bin, "status", "--socket", name) // any program that connects
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "not allowed to open") {
			t.Errorf("nobody may connect to %s: %v: %s", name, err, out)
		}
	}
	for _, metadata := range []string{
		`{"whittle":1,"workload":"` + ms.workload + `","revision":1,"seq":1}`,
		`{"whittle":1,"workload":"../../x","revision":-1,"seq":-9223372036854775808}`,
		"\x00\n", strings.Repeat("{", 100_000), "",
	} {
		for _, fd := range []int{-1, 0} { // without a descriptor, and with one that is no listener
			handOver(t, socket, s.id, os.Getpid(), metadata, fd)
			handOver(t, socket, "whittle-e2e-nobody\n\"'", s.pid, metadata, fd)
		}
	}
	s.works(1)
	if n := s.supervised().Supervision.Listeners; n != 1 {
		t.Errorf("it has %d listeners", n)
	}
	for _, c := range ms.d.status().Containers {
		if c.Name != s.id {
			t.Errorf("a container was made up: %+v", c)
		}
	}
	ms.d.linesAreWhole()
}

// handOver a listener as a runtime does.
func handOver(t *testing.T, socket, id string, pid int, metadata string, fd int) {
	t.Helper()
	state, err := json.Marshal(specs.ContainerProcessState{
		Version: "1.0.2", Fds: []string{"seccompFd"}, Pid: pid, Metadata: metadata,
		State: specs.State{Version: "1.0.2", ID: id, Status: "creating", Pid: pid, Bundle: "/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	_, _, _ = conn.WriteMsgUnix(state, rights, nil) // it may be turned away
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, _ = conn.Read(make([]byte, 1)) // until it has been looked at
}

// TestHostileNames of programs: what is printed of them stays on its line.
func TestHostileNames(t *testing.T) {
	ms := newMasters(t)
	name := "ser\nvant \"'\x1b[31m\\"
	var spec specs.Spec
	if err := json.Unmarshal(ms.config, &spec); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(spec.Root.Path, "servant")
	if err := os.Link(program, filepath.Join(spec.Root.Path, name)); err != nil {
		t.Fatal(err)
	}
	spec.Process.Args = []string{"/" + name}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	hostile := &masters{d: ms.d, root: ms.root, config: text}
	s := hostile.start(t, "hostile")
	s.allowed(unix.SYS_PERSONALITY, 2)
	c := ms.d.container(s.id, "is learned from", learning)
	s.quit()
	ms.d.forgotten()
	hostile.workload = c.WorkloadID
	ms.d.whittle("policy", "mode", c.WorkloadID, "enforce")
	s = hostile.start(t, "hostile-again")
	s.supervised()
	s.allowed(unix.SYS_PERSONALITY, 1)
	s.refused(3)
	ms.d.linesAreWhole()
}

// linesAreWhole: whatever a container is called and does, a line of output is a line.
func (d *daemon) linesAreWhole() {
	d.t.Helper()
	begins := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  `)
	for line := range strings.Lines(d.whittle("event", "list")) {
		if !begins.MatchString(line) || strings.ContainsRune(line, 0x1b) {
			d.t.Errorf("event list: %q", line)
		}
	}
	for _, args := range [][]string{{"status"}, {"policy", "list"}} {
		out := d.whittle(args...)
		for line := range strings.Lines(out) {
			if strings.ContainsAny(line, "\x1b\r") || strings.HasPrefix(line, "vant") {
				d.t.Errorf("%v: %q", args, line)
			}
		}
	}
	_ = ask[api.Status](d, "status") // it is JSON
}
