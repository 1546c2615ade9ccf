// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/sys/unix"
)

const (
	tries = 2 // tracers for one request: the second finishes what the first left
	// A tracer that gets nowhere for this long is killed, and what it began is undone: a thread stands still for it.
	stalled = 10 * time.Second
	// The guardian's patience with a thread that has a killed tracer's registers.
	recoverPatience = 30 * time.Second
)

// guardian starts the tracer, and puts right what it leaves behind when it is killed.
type guardian struct {
	req    Request
	j      *journal
	out    conn
	caller int
	fds    []int // request, journal, guard's ends
}

func (g *guardian) run() error {
	for try := range tries {
		ended, err := g.trace(try)
		if err != nil {
			return err
		}
		if ended == "" {
			return nil
		}
		g.recover()
		g.problem("the tracer was killed (%s); what it had begun was put in order", ended)
		if try == tries-1 {
			break
		}
		// A fresh guard: the old one has gone off.
		if err := g.rearm(); err != nil {
			return err
		}
	}
	return errors.New("inject: every tracer was killed")
}

// trace runs one tracer. ended says how it was killed, "" when it was not.
func (g *guardian) trace(try int) (ended string, err error) {
	ours, theirs, err := newPair()
	if err != nil {
		return "", err
	}
	defer unix.Close(int(ours))
	file := os.NewFile(uintptr(theirs), "socket")
	cmd := exec.Cmd{Path: "/proc/self/exe", Args: []string{"whittle", "inject"}, Stderr: os.Stderr, ExtraFiles: []*os.File{file}}
	if try > 0 {
		cmd.Env = withoutStop(os.Environ())
	}
	err = cmd.Start()
	file.Close()
	if err != nil {
		return "", fmt.Errorf("start the tracer: %w", err)
	}
	err = ours.send(message{Kind: kindTrace, Caller: g.caller}, g.fds[0], g.fds[1], g.fds[2], g.fds[3], int(g.out))
	// The write end must be in the tracer alone.
	unix.Close(g.fds[3])
	g.fds[3] = -1
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() { defer close(watched); g.watch(cmd.Process, stop) }()
	how := cmd.Wait()
	close(stop)
	<-watched
	if how != nil { // that it could not be asked is no other news
		return how.Error(), nil
	}
	return "", err
}

// watch kills a tracer that gets nowhere.
func (g *guardian) watch(p *os.Process, stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last, since := g.j.ticked(), time.Now()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if now := g.j.ticked(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > stalled {
			_ = p.Kill() // it may have ended just now
			return
		}
	}
}

func (g *guardian) rearm() error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("make the guard: %w", err)
	}
	unix.Close(g.fds[2])
	g.fds[2], g.fds[3] = pipe[0], pipe[1]
	return setGuard(pipe[0])
}

func withoutStop(env []string) (out []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, StopEnvironment+"=") {
			out = append(out, e)
		}
	}
	return out
}

func (g *guardian) problem(format string, args ...any) {
	_ = g.out.send(message{Kind: kindProblem, Text: fmt.Sprintf(format, args...)}) // nobody is left to tell
}

// recover what the journal says is half done.
func (g *guardian) recover() {
	if owed := g.j.owed(); owed != nothing && g.req.Cgroup != "" {
		// Thawed for as long as a thread has to make calls.
		if err := writeFile(filepath.Join(g.req.Cgroup, "cgroup.freeze"), "0"); err != nil && !absent(err) {
			g.problem("the container may still be frozen: %v", err)
		}
		if owed == freeze {
			defer func() {
				if err := writeFile(filepath.Join(g.req.Cgroup, "cgroup.freeze"), "1"); err != nil && !absent(err) {
					g.problem("the container was frozen and is not any more: %v", err)
				}
			}()
		}
		g.j.owe(nothing)
	}
	at := g.j.at()
	if at == idle {
		return
	}
	if at >= saved {
		if err := g.restore(at); err != nil && !absent(err) {
			g.problem("process %d could not be put in order: %v", g.j.pid, err)
			return // it stays stopped: better than running with another's registers
		}
	}
	g.j.set(idle)
	if g.j.wasStopped == 0 && g.same() {
		_ = unix.Kill(int(g.j.pid), unix.SIGCONT) // it may have exited
	}
}

// same says whether the process of the journal is still that one.
func (g *guardian) same() bool {
	s, err := readStat(procPath(int(g.j.pid), "/stat"))
	return err == nil && s.start == g.j.start
}

// restore the thread. The guard has stopped it, wherever it was: nothing has run with its registers but our own call.
func (g *guardian) restore(at stage) error {
	j := g.j
	if !g.same() {
		return nil
	}
	// It may have exited and its number be a kernel thread's: the target's checks are those of any injection.
	tg, err := prepare(int(j.pid), j.start)
	if err != nil {
		return gone(err)
	}
	defer tg.close()
	th, err := tg.stop(int(j.tid), recoverPatience)
	if err != nil {
		return err
	}
	defer th.release()
	abi := syscalls.ABI(j.abi)
	nr, err := numbersOf(abi)
	if err != nil {
		return err
	}
	if err := setSignalMask(th.tid, ^uint64(0)); err != nil {
		return gone(err)
	}
	var now registers
	if err := getRegisters(th.tid, &now); err != nil {
		return gone(err)
	}
	g.understand(at, &now, abi, nr)
	err = g.finish(tg, th, abi, nr)
	unboost(th.tid, j)
	if th.cured = j.cured != 0; th.unsettle(&j.regs, j.mask) {
		j.cured = 0
	}
	return errors.Join(err, th.giveBack(&j.regs, j.mask))
}

// understand what became of the call that was under way when the tracer was killed.
func (g *guardian) understand(at stage, now *registers, abi syscalls.ABI, nr callNumbers) {
	j := g.j
	made := func(n uint32) (int64, bool) {
		return outcome(now, abi), programCounter(now) == j.site+insnLen && lastCall(now) == n
	}
	switch at {
	case inMmap:
		if got, ok := made(nr.mmap); ok && (got > 0 || got <= -4096) {
			j.scratch = uint64(got)
		}
	case inSeccomp:
		if got, ok := made(nr.seccomp); ok && got >= 0 && j.installed == 0 {
			j.installed = 1
			if j.listener != 0 {
				j.fd = int32(got)
			}
		}
	case inClose:
		if _, ok := made(nr.close); ok {
			j.fd = -1
		}
	case inMunmap:
		if _, ok := made(nr.munmap); ok {
			j.scratch = 0
		}
	}
}

// finish the job if the filter is in, and leave nothing behind either way.
func (g *guardian) finish(tg *target, th *thread, abi syscalls.ABI, nr callNumbers) error {
	j := g.j
	var errs []error
	p := Process{PID: th.pid, Start: th.start, Threads: len(tg.tasks), How: ByRecovery, NoNewPrivs: j.nnp != 0, ABI: abi}
	if j.fd >= 0 {
		if j.fetched == 0 {
			if err := g.fetch(tg, th); err != nil {
				p.Err = err.Error()
			}
		}
		if _, err := th.call(j.regs, abi, j.site, nr.close, uint64(j.fd)); err != nil {
			errs = append(errs, err)
		}
	}
	if j.scratch != 0 {
		if _, err := th.call(j.regs, abi, j.site, nr.munmap, j.scratch, j.scratchLen); err != nil {
			errs = append(errs, err)
		}
	}
	if j.installed == 0 {
		g.problem("the injection into process %d was undone", th.pid)
		return errors.Join(errs...)
	}
	if s, err := readStatus(procPath(th.pid, "/status")); err == nil {
		p.Filters = s.filters
	}
	_ = g.out.send(message{Kind: kindProcess, Process: &p}) // nobody is left to tell
	return errors.Join(errs...)
}

func (g *guardian) fetch(tg *target, th *thread) error {
	fd, err := unix.PidfdGetfd(tg.pidfd, int(g.j.fd), 0)
	if err != nil {
		return fmt.Errorf("take the listener from process %d: %w", th.pid, err)
	}
	defer unix.Close(fd)
	return g.out.send(message{Kind: kindListener, PID: th.pid, TID: th.tid}, fd)
}
