// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"golang.org/x/sys/unix"
)

// helpers of this test binary that run, by their parent.
func helpersOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	all, err := descendants([]int{parent})
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range all {
		s, err := readStat(procPath(pid, "/stat"))
		if err != nil || s.ppid != parent || s.state == 'Z' {
			continue
		}
		if raw, err := os.ReadFile(procPath(pid, "/cmdline")); err == nil && bytes.Equal(raw, []byte("whittle\x00inject\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stopped tracer and its guardian.
func stoppedTracer(t *testing.T) (guardian, tracer int) {
	t.Helper()
	until(t, "the tracer to stop itself", func() bool {
		for _, g := range helpersOf(t, os.Getpid()) {
			for _, p := range helpersOf(t, g) {
				if stateOf(p) == 'T' {
					guardian, tracer = g, p
					return true
				}
			}
		}
		return false
	})
	return guardian, tracer
}

// killAt runs an injection whose tracer stops at a step, and does something to it there.
func killAt(t *testing.T, at string, r Request, do func(guardian, tracer int)) (Result, error) {
	t.Helper()
	t.Setenv(StopEnvironment, at)
	type answer struct {
		r   Result
		err error
	}
	done := make(chan answer, 1)
	go func() {
		got, err := Run(t.Context(), self(t), r)
		done <- answer{got, err}
	}()
	do(stoppedTracer(t))
	a := <-done
	t.Cleanup(a.r.Close)
	os.Unsetenv(StopEnvironment)
	return a.r, a.err
}

// Killed at any step, the tracer leaves a process that goes on with what it did, and the guardian has the job finished.
func TestTracerKilledAtEachStep(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "block")
	other := exe
	if native == syscalls.X86_64 {
		testenv.NeedI386(t)
		other = compileC(t, "block", i386Flags()...)
	}
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	for _, call := range []string{"nanosleep", "epoll_wait", "spin"} {
		if call == "epoll_wait" {
			exe = other
		}
		for _, at := range Steps {
			for _, listener := range []bool{false, true} {
				// Every step once with a listener; the rest is a sample, or it takes a minute.
				if (!listener || call != "nanosleep") && at != "written" && at != "installed" {
					continue
				}
				if !listener && call != "nanosleep" {
					continue
				}
				name := call + "/" + at
				if listener {
					name += "/listener"
				}
				t.Run(name, func(t *testing.T) {
					c := startAs(t, nobody, exe, call, "800")
					c.line(t)
					r := Request{PIDs: []int{c.Process.Pid}, Program: noMkdir(t), Listener: listener}
					got, err := killAt(t, at, r, func(_, tracer int) { unix.Kill(tracer, unix.SIGKILL) })
					if err != nil || !got.Complete || len(got.Problems) == 0 {
						t.Fatalf("got %+v, %v; want it complete, with a word about the killed tracer", got, err)
					}
					if listener && (len(got.Processes) != 1 || got.Processes[0].Listener < 0) {
						t.Errorf("got %+v, want the listener", got.Processes)
					}
					if s, err := readStatus(procPath(c.Process.Pid, "/status")); err != nil || s.filters != 1 || s.tracer != 0 {
						t.Errorf("got %+v, %v; want one filter and no tracer", s, err)
					}
					checkRestored(t, c.Process.Pid)
					if got, want := c.line(t), blocking[call]+" whole filtered"; got != want {
						t.Errorf("got %q, want %q", got, want)
					}
				})
			}
		}
	}
}

// checkRestored looks for what an injection must not leave behind: a blocked signal, a real-time priority, a descriptor.
func checkRestored(t *testing.T, pid int) {
	t.Helper()
	raw, err := os.ReadFile(procPath(pid, "/status"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte("SigBlk:\t0000000000000000\n")) {
		t.Error("signals are blocked in it")
	}
	if a, err := unix.SchedGetAttr(pid, 0); err != nil || a.Policy != schedNormal {
		t.Errorf("its scheduling: %+v, %v; want the normal one", a, err)
	}
	fds, err := os.ReadDir(procPath(pid, "/fd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(procPath(pid, "/fd/"+fd.Name())); to == "anon_inode:seccomp notify" {
			t.Error("the listener is open in it")
		}
	}
}

// Killed together, they leave it to the caller of Run.
func TestTracerAndGuardianKilled(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "block")
	for _, at := range Steps {
		if at == "nnp" {
			continue // root needs none
		}
		t.Run(at, func(t *testing.T) {
			c := start(t, exe, "nanosleep", "800")
			c.line(t)
			r := Request{PIDs: []int{c.Process.Pid}, Program: noMkdir(t), Listener: true}
			got, err := killAt(t, at, r, func(guardian, tracer int) {
				unix.Kill(guardian, unix.SIGKILL)
				unix.Kill(tracer, unix.SIGKILL)
			})
			if err == nil {
				t.Errorf("got no error: %+v", got)
			}
			got.Close()
			// Again.
			r.Listener = false
			if s, err := readStatus(procPath(c.Process.Pid, "/status")); err == nil && s.filters == 0 {
				inject(t, r)
			}
			checkRestored(t, c.Process.Pid)
			if got, want := c.line(t), blocking["nanosleep"]+" whole filtered"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// Without its guardian a tracer finishes what it has begun, and begins nothing more.
func TestGuardianKilled(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "block")
	for _, at := range []string{"saved", "written", "installed", "restored"} {
		t.Run(at, func(t *testing.T) {
			c := start(t, exe, "nanosleep", "800")
			c.line(t)
			got, err := killAt(t, at, Request{PIDs: []int{c.Process.Pid}, Program: noMkdir(t), Listener: true},
				func(guardian, tracer int) {
					unix.Kill(guardian, unix.SIGKILL)
					unix.Kill(tracer, unix.SIGCONT)
				})
			if err == nil || len(got.Processes) != 1 || got.Processes[0].Listener < 0 {
				t.Errorf("got %+v, %v; want an error, and the process with its listener", got, err)
			}
			checkRestored(t, c.Process.Pid)
			if got, want := c.line(t), blocking["nanosleep"]+" whole filtered"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// Killed while the container stands still: it runs again, or stands still as it did before, and has the filter.
func TestKilledWhileFrozen(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "block")
	for _, at := range []string{"seized", "installed"} {
		for _, both := range []bool{false, true} {
			for _, frozen := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/both=%v/frozen=%v", at, both, frozen), func(t *testing.T) {
					group := newGroup(t)
					var cs []*child
					for range 3 {
						c := startAs(t, inGroupAttr(t, group), exe, "epoll_wait", "800")
						c.line(t)
						cs = append(cs, c)
					}
					if frozen {
						if err := writeFile(group+"/cgroup.freeze", "1"); err != nil {
							t.Fatal(err)
						}
						until(t, "it to freeze", func() bool { return frozenStill(group) })
					}
					r := Request{Cgroup: group, Program: noMkdir(t)}
					got, err := killAt(t, at, r, func(guardian, tracer int) {
						if both {
							unix.Kill(guardian, unix.SIGKILL)
						}
						unix.Kill(tracer, unix.SIGKILL)
					})
					if !both && (err != nil || !got.Complete) {
						t.Errorf("got %+v, %v; want it complete", got, err)
					}
					if frozen {
						until(t, "it to be frozen again", func() bool { return frozenStill(group) })
					}
					inject(t, r) // does nothing where all are done
					if err := writeFile(group+"/cgroup.freeze", "0"); err != nil {
						t.Fatal(err)
					}
					for _, c := range cs {
						if got, want := c.line(t), "0 0 whole filtered"; got != want {
							t.Errorf("got %q, want %q", got, want)
						}
					}
				})
			}
		}
	}
}

// Killed at any moment at all.
func TestKilledAtRandom(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "block")
	rounds := 6
	if n, err := strconv.Atoi(os.Getenv("WHITTLE_TEST_ROUNDS")); err == nil {
		rounds = n
	}
	calls := []string{"spin", "nanosleep", "epoll_wait", "read"}
	interrupted := 0
	for i := range rounds {
		call := calls[i%len(calls)]
		c := start(t, exe, call, "800")
		c.line(t)
		done := make(chan Result, 1)
		go func() {
			got, err := Run(t.Context(), self(t), Request{PIDs: []int{c.Process.Pid}, Program: noMkdir(t), Listener: true})
			if err != nil {
				t.Errorf("Run: %v", err)
			}
			done <- got
		}()
		var got Result
		for ended := false; !ended; {
			select {
			case got = <-done:
				ended = true
			default:
				ended = killTracer(t)
				if ended {
					got = <-done
				}
			}
		}
		got.Close()
		result := got
		if len(got.Problems) > 0 {
			interrupted++
		}
		if !got.Complete {
			t.Errorf("round %d: not complete: %+v", i, got)
		}
		if got, want := c.line(t), blocking[call]+" whole filtered"; got != want {
			t.Errorf("round %d: %s: got %q, want %q (%+v)", i, call, got, want, result)
		}
		c.end()
	}
	t.Logf("%d of %d tracers were killed before their end", interrupted, rounds)
}

// killTracer at a random moment of its life, if there is one.
func killTracer(t *testing.T) bool {
	t.Helper()
	for _, g := range helpersOf(t, os.Getpid()) {
		for _, p := range helpersOf(t, g) {
			time.Sleep(rand.N(12 * time.Millisecond))
			return unix.Kill(p, unix.SIGKILL) == nil
		}
	}
	return false
}
