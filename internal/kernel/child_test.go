// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// runChild is what this test binary does when a test runs it inside a cgroup.
func runChild(program string) int {
	switch program {
	case "markers":
		return markers()
	case "marks":
		return marks()
	}
	fmt.Fprintln(os.Stderr, "no such child:", program)
	return 2
}

// markers makes one rare call after another, a known time apart, and tells when on stdout.
func markers() int {
	for _, m := range markerCalls {
		time.Sleep(m.after)
		unix.Syscall6(m.nr, ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), 0, 0)
	}
	return 0
}

// markerCalls are calls that nothing else in a Go program makes.
var markerCalls = []struct {
	nr    uintptr
	name  string
	after time.Duration
}{
	{unix.SYS_GETSID, "getsid", 100 * time.Millisecond},
	{unix.SYS_MINCORE, "mincore", 1300 * time.Millisecond},
	{unix.SYS_GETPRIORITY, "getpriority", 1300 * time.Millisecond},
	{unix.SYS_SCHED_GETPARAM, "sched_getparam", 1300 * time.Millisecond},
	{unix.SYS_GETPGID, "getpgid", 1300 * time.Millisecond},
}

// marks listens, is connected to, and waits for signals; it tells on stdout what it has done, and its parent acts on it.
func marks() int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Addr())
	c, err := l.Accept()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c.Close()
	unix.Getsid(0) // run
	fmt.Println("accepted")
	<-signals
	unix.Getpgid(0) // reload
	fmt.Println("reloaded")
	<-signals
	unix.Getpriority(0, 0) // stop
	return 0
}
