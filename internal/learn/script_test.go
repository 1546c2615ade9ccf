// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"slices"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// script writes a trace the way a container makes it happen, one call or burst after the other.
type script struct {
	t     testing.TB
	trace observe.Trace
}

func newScript(t testing.TB) *script {
	s := &script{t: t, trace: observe.Trace{Arch: syscalls.X86_64}}
	s.epoch(0, observe.CauseStart)
	return s
}

// epoch begins at a time in seconds.
func (s *script) epoch(at float64, cause observe.Cause) {
	start := time.Duration(at * float64(time.Second))
	s.trace.Epochs = append(s.trace.Epochs, observe.Epoch{Start: start, Cause: cause})
	s.trace.Length = start
}

// until begins an epoch at each full second after the current one's beginning, up to and including the last, calling work
// in each of them after it began.
func (s *script) until(last int, work func(second int)) {
	for at := int(s.trace.Length.Seconds()) + 1; at <= last; at++ {
		s.epoch(float64(at), observe.CauseTick)
		if work != nil {
			work(at)
		}
	}
}

func (s *script) end(at float64, ended bool) observe.Trace {
	s.trace.Length = time.Duration(at * float64(time.Second))
	s.trace.Ended = ended
	if err := s.trace.Validate(); err != nil {
		s.t.Fatalf("the script wrote a damaged trace: %v", err)
	}
	return s.trace
}

func (s *script) cell(lane observe.Lane, exe string, generation uint8, birth bool) int {
	role := observe.Role{Exe: exe, Generation: generation}
	for i, c := range s.trace.Cells {
		if c.Lane == lane && c.Role == role && c.Birth == birth {
			return i
		}
	}
	s.trace.Cells = append(s.trace.Cells, observe.Cell{Lane: lane, Role: role, Birth: birth})
	return len(s.trace.Cells) - 1
}

func (s *script) service(exe string, names ...string) {
	s.calls(s.cell(observe.LaneService, exe, 0, false), 1, names)
}

// calls made n times each in the current epoch.
func (s *script) calls(cell int, n uint64, names []string) {
	for _, name := range names {
		call := syscalls.Call{ABI: syscalls.X86_64, Nr: s.number(name)}
		calls := &s.trace.Cells[cell].Calls
		i := slices.IndexFunc(*calls, func(seen observe.Seen) bool { return seen.Call == call })
		if i < 0 {
			i = len(*calls)
			*calls = append(*calls, observe.Seen{Call: call})
		}
		(*calls)[i].Epochs = s.count((*calls)[i].Epochs, n)
	}
}

// burst of calls of the service, made n times in the current epoch.
func (s *script) burst(exe string, n uint64, names ...string) {
	cell := s.cell(observe.LaneService, exe, 0, false)
	s.calls(cell, n, names)
	var nrs []uint32
	for _, name := range names {
		nrs = append(nrs, s.number(name))
	}
	slices.Sort(nrs)
	i := slices.IndexFunc(s.trace.Bursts, func(b observe.Burst) bool { return b.Cell == cell && slices.Equal(b.Calls, nrs) })
	if i < 0 {
		i = len(s.trace.Bursts)
		s.trace.Bursts = append(s.trace.Bursts, observe.Burst{Cell: cell, ABI: syscalls.X86_64, Calls: nrs})
	}
	s.trace.Bursts[i].Epochs = s.count(s.trace.Bursts[i].Epochs, n)
}

func (s *script) arg(cell int, name string, index uint8, value uint64) {
	s.calls(cell, 1, []string{name})
	s.trace.Args = append(s.trace.Args, observe.Arg{
		Cell:  cell,
		Call:  syscalls.Call{ABI: syscalls.X86_64, Nr: s.number(name)},
		Index: index,
		Value: value,
		First: uint32(len(s.trace.Epochs) - 1),
	})
}

func (s *script) count(counts []observe.EpochCount, n uint64) []observe.EpochCount {
	now := uint64(len(s.trace.Epochs) - 1)
	if last := len(counts) - 1; last >= 0 && counts[last][0] == now {
		counts[last][1] += n
		return counts
	}
	return append(counts, observe.EpochCount{now, n})
}

func (s *script) number(name string) uint32 {
	nr, ok := syscalls.Number(syscalls.X86_64, name)
	if !ok {
		s.t.Fatalf("unknown call %s", name)
	}
	return nr
}

// Calls as real programs make them.
var (
	loaderCalls = []string{"execve", "brk", "arch_prctl", "mmap", "access", "openat", "fstat", "read", "close", "pread64",
		"mprotect", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "munmap", "getrandom"}
	serverCalls = []string{"socket", "setsockopt", "bind", "listen", "rt_sigaction", "rt_sigprocmask", "clone3", "getpid",
		"epoll_create1", "epoll_ctl", "pipe2", "fcntl", "lseek", "sysinfo", "uname", "getcwd", "umask", "dup2", "sched_getaffinity"}
	connectCalls = []string{"accept4", "getpeername", "ioctl"}
	requestCalls = []string{"epoll_wait", "read", "write"}
)

// redis under a benchmark from the first millisecond: it accepts at 0.112 s.
func redis(s *script, seconds int) {
	s.service("redis", loaderCalls...)
	s.service("redis", serverCalls...)
	s.epoch(0.112, observe.CauseReady)
	s.service("redis", connectCalls...)
	load := func(second int) {
		s.burst("redis", 100_000, requestCalls...)
		s.burst("redis", 10, "epoll_wait", "getpid", "openat", "close")
	}
	load(0)
	s.until(seconds, load)
}

// worker takes jobs from a queue that it connects to; it never accepts.
func worker(s *script, seconds int) {
	s.service("worker", loaderCalls...)
	s.service("worker", "socket", "connect", "rt_sigaction", "getpid")
	load := func(int) { s.burst("worker", 5, "poll", "read", "write", "openat", "fstat", "close") }
	load(0)
	s.until(seconds, load)
}

// entrypoint is like PostgreSQL's: it creates a database, runs a temporary server that accepts at 2 s, stops it and starts
// the real one at 4.3 s, whose calls are all known.
func entrypoint(s *script, seconds int) {
	s.service("bash", loaderCalls...)
	s.service("bash", "wait4", "clone", "pipe2", "dup2")
	s.epoch(1, observe.CauseTick)
	s.service("initdb", loaderCalls...)
	s.service("initdb", "fsync", "unlink", "mkdir", "chmod", "rename", "ftruncate")
	s.service("postgres", serverCalls...)
	s.epoch(2, observe.CauseReady)
	s.service("postgres", "accept4", "recvfrom", "sendto", "epoll_wait")
	s.epoch(3, observe.CauseTick)
	s.service("bash", "kill", "wait4")
	s.epoch(4, observe.CauseTick)
	s.service("bash", "execve")
	s.service("postgres", serverCalls...)
	s.until(seconds, func(int) {
		s.service("postgres", "accept4")
		s.burst("postgres", 300, "epoll_wait", "recvfrom", "sendto")
	})
}
