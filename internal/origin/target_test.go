// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// A family in a pid namespace: a shell that is its first process, a child of it, a grandchild, and a second child.
func TestTarget(t *testing.T) {
	testenv.NeedRoot(t)
	cmd := exec.Command("/bin/sh", "-c", `sh -c 'sleep 600 & echo $! $$; wait' & read wait; kill -9 0`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Setpgid: true, Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the thread's end is the parent's
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(line)
	if len(fields) != 2 {
		t.Fatalf("%q", line)
	}
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first, child, grandchild := uint64(1), number(fields[1]), number(fields[0])
	host := func(n uint64) int {
		pid, err := translated(cmd.Process.Pid, int(n))
		if err != nil {
			t.Fatal(err)
		}
		old, err := scanned(cmd.Process.Pid, int(n))
		if err != nil || old != pid {
			t.Errorf("%d is %d to the kernel, and %d (%v) by what processes say of themselves", n, pid, old, err)
		}
		return pid
	}
	less := func(n uint64) uint64 { return uint64(uint32(-int32(n))) }
	g := NewGatherer(0)
	for _, tt := range []struct {
		name, call   string
		from, target uint64
		want         judge.Target
	}{
		{"a child", "kill", first, child, judge.Descendant},
		{"a grandchild", "kill", first, grandchild, judge.Descendant},
		{"its own child", "tgkill", child, grandchild, judge.Descendant},
		{"the group of a child", "kill", first, less(child), judge.Descendant},
		{"the group of its parent", "kill", child, less(first), judge.NoTarget},
		{"itself", "tgkill", child, child, judge.Itself},
		{"itself, by one that has no groups", "tgkill", child, less(child), judge.NoTarget},
		{"its parent", "kill", child, first, judge.NoTarget},
		{"its grandparent", "kill", grandchild, first, judge.NoTarget},
		{"its group", "kill", first, 0, judge.NoTarget},
		{"everybody", "kill", first, less(1), judge.NoTarget},
		{"nobody", "kill", first, 0x3fffffff, judge.Gone},
		{"nobody's group", "kill", first, less(0x3fffffff), judge.NoTarget},
		{"a number of the host", "kill", first, uint64(os.Getpid()), judge.Gone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nr, ok := syscalls.Number(syscalls.X86_64, tt.call)
			if !ok {
				t.Fatal(tt.call)
			}
			call, from := syscalls.Call{ABI: syscalls.X86_64, Nr: nr}, host(tt.from)
			for _, upper := range []uint64{0, 0xdead << 32} { // the kernel looks at the lower half
				if got := g.Target(from, call, [6]uint64{tt.target | upper, 9}); got != tt.want {
					t.Errorf("Target(%#x) = %v, want %v", tt.target|upper, got, tt.want)
				}
			}
		})
	}
	if got := g.Target(1<<30, syscalls.Call{ABI: syscalls.X86_64, Nr: 62}, [6]uint64{1}); got != judge.NoTarget {
		t.Errorf("by nobody: %v", got)
	}
}

func BenchmarkTarget(b *testing.B) {
	g, pid := NewGatherer(0), os.Getpid()
	for b.Loop() {
		g.Target(pid, syscalls.Call{ABI: syscalls.X86_64, Nr: 62}, [6]uint64{uint64(pid)})
	}
}

func BenchmarkTargetScanned(b *testing.B) {
	for b.Loop() {
		if _, err := scanned(os.Getpid(), os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}
