// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package and exits, with failure when they leave file descriptors, goroutines or child
// processes behind. Call it from TestMain.
func Main(m *testing.M) {
	os.Exit(Checked(m).Run())
}

// Checked is for packages whose TestMain hands m to something else that runs it, such as testscript.Main.
func Checked(m interface{ Run() int }) *Checker {
	return &Checker{m: m, fds: openFDs(), children: childProcesses()}
}

// Checker runs tests and then looks for leaks. It is made by Checked.
type Checker struct {
	m        interface{ Run() int }
	fds      map[int]string
	children map[int]string
}

// Run runs the tests; 0 means that they passed and left nothing behind.
func (c *Checker) Run() int {
	code := c.m.Run()
	// A failed test may stop half-way and leak; its own message is the one to read. Fuzzing runs workers of its own.
	if code != 0 || fuzzing() {
		return code
	}
	return c.report(os.Stderr, settle(c.leaks))
}

func (c *Checker) report(w io.Writer, leaks []string) int {
	if len(leaks) == 0 {
		return 0
	}
	fmt.Fprintf(w, "testenv: the tests passed but left this behind:\n")
	for _, leak := range leaks {
		fmt.Fprintf(w, "\t%s\n", strings.ReplaceAll(leak, "\n", "\n\t\t"))
	}
	return 1
}

func fuzzing() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" && f.Value.String() != "false" {
			return true
		}
	}
	return false
}

// settle waits for leaks to go away: a goroutine that was told to end needs a moment on a busy machine, and a closed
// file whose read is in flight is released by the reader.
func settle(leaks func() []string) []string {
	const tries, pause = 50, 100 * time.Millisecond
	var found []string
	for range tries {
		runtime.GC() // finalizers close what only lost references hold; those leaks are the standard library's
		if found = leaks(); len(found) == 0 {
			return nil
		}
		time.Sleep(pause)
	}
	return found
}

func (c *Checker) leaks() []string {
	var out []string
	now := openFDs()
	for _, fd := range slices.Sorted(maps.Keys(now)) {
		if target := now[fd]; c.fds[fd] != target && !runtimeFD(target) {
			out = append(out, fmt.Sprintf("fd %d: %s", fd, target))
		}
	}
	children := childProcesses()
	for _, pid := range slices.Sorted(maps.Keys(children)) {
		if c.children[pid] != children[pid] {
			out = append(out, fmt.Sprintf("child process %d: %s", pid, children[pid]))
		}
	}
	return append(out, goroutines()...)
}

// runtimeFD says whether the Go runtime opens such a descriptor by itself and keeps it: its poller's.
func runtimeFD(target string) bool {
	return target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]"
}

// openFDs is descriptor → what it points at.
func openFDs() map[int]string {
	const dir = "/proc/self/fd"
	out := make(map[int]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		panic(fmt.Sprintf("listing open files: %v", err)) // no /proc, no Linux: nothing here works
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // the descriptor of this very listing
		}
		if fd, err := strconv.Atoi(entry.Name()); err == nil {
			out[fd] = target
		}
	}
	return out
}

// childProcesses is pid → command name and state, zombies included: an unreaped child is a leak too.
func childProcesses() map[int]string {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		panic(fmt.Sprintf("listing processes: %v", err))
	}
	out := make(map[int]string)
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// pid (comm) state ppid …; comm may hold anything, parentheses too.
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		if open < 0 || end < open {
			continue
		}
		fields := strings.Fields(string(stat[end+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		out[pid] = fmt.Sprintf("%s (state %s)", stat[open:end+1], fields[0])
	}
	return out
}

// Goroutines that live as long as the process by design of the standard library.
var standing = regexp.MustCompile(`(?m)^(os/signal\.(signal_recv|loop)|testing\.\(\*M\)\.Run|testing\.runFuzzing|runtime\.ensureSigM)`)

// goroutines returns the stacks of all goroutines but the caller's and the standing ones.
func goroutines() []string {
	buf := make([]byte, 4<<20)
	stacks := strings.Split(strings.TrimSpace(string(buf[:runtime.Stack(buf, true)])), "\n\n")
	var out []string
	for _, stack := range stacks[1:] { // the first is the caller's own
		if !standing.MatchString(stack) {
			out = append(out, stack)
		}
	}
	return out
}
