// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Run the injection in helper processes: exe, given the one argument "inject", calls Serve. The listeners in the result are
// the caller's, also when there is an error. A context that is done does not stop an injection that has begun; it keeps
// one from beginning.
func Run(ctx context.Context, exe string, r Request) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("inject: %w", err)
	}
	request, err := newPayload(r)
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(request)
	journalFD, err := newJournalFile()
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(journalFD)
	j, unmap, err := openJournal(journalFD)
	if err != nil {
		return Result{}, err
	}
	defer unmap()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return Result{}, fmt.Errorf("make the guard: %w", err)
	}
	// The read end stays with us for as long as a tracer may live: see tracer.aim.
	defer unix.Close(pipe[0])
	if err := setGuard(pipe[0]); err != nil {
		unix.Close(pipe[1])
		return Result{}, err
	}
	c := newCollector()
	err = helper(exe, message{Kind: kindGuard, Caller: os.Getpid()},
		[]int{request, journalFD, pipe[0], pipe[1]}, func() { unix.Close(pipe[1]) }, c.take)
	if j.at() != idle || j.owed() != nothing {
		// The guardian was killed too.
		c.problem("the guardian and the tracer were killed; what they left was put in order")
		err = errors.Join(err, helper(exe, message{Kind: kindRecover}, []int{request, journalFD}, nil, c.take))
	}
	return c.result(), err
}

// setGuard lets the pipe's end of life raise SIGSTOP for whoever owns the read end: nobody yet.
func setGuard(fd int) error {
	_, err1 := unix.FcntlInt(uintptr(fd), unix.F_SETSIG, int(unix.SIGSTOP))
	_, err2 := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_NONBLOCK|unix.O_ASYNC)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("set the guard: %w", err)
	}
	return nil
}

// helper starts exe, asks it, and gives every answer to take, until no process is left that could send one.
func helper(exe string, ask message, fds []int, sent func(), take func(message, []int)) error {
	ours, theirs, err := newPair()
	if err != nil {
		return err
	}
	defer unix.Close(int(ours))
	file := os.NewFile(uintptr(theirs), "socket")
	var said strings.Builder
	cmd := exec.Cmd{Path: exe, Args: []string{"whittle", "inject"}, ExtraFiles: []*os.File{file}, Stderr: &limited{w: &said}}
	// Of its own session: a signal for the caller's terminal or group is none for a thread that holds tracees.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	file.Close()
	if err != nil {
		if sent != nil {
			sent()
		}
		return fmt.Errorf("start the injector: %w", err)
	}
	err = ours.send(ask, fds...)
	if sent != nil {
		sent()
	}
	for err == nil {
		var m message
		var got []int
		if m, got, err = ours.receive(); err == nil {
			take(m, got)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if ended := cmd.Wait(); ended != nil {
		err = errors.Join(err, fmt.Errorf("the injector: %w: %s", ended, strings.TrimSpace(said.String())))
	}
	return err
}

// limited keeps the beginning of what a helper says when it fails.
type limited struct {
	w    *strings.Builder
	lost bool
}

func (l *limited) Write(b []byte) (int, error) {
	if room := 4096 - l.w.Len(); room < len(b) {
		l.lost = true
		l.w.Write(b[:max(room, 0)])
		return len(b), nil
	}
	return l.w.Write(b)
}

// collector puts the answers together.
type collector struct {
	r         Result
	listeners map[int]map[int]int // pid → tid → descriptor
	done      bool
}

func newCollector() *collector { return &collector{listeners: map[int]map[int]int{}} }

func (c *collector) problem(text string) { c.r.Problems = append(c.r.Problems, text) }

func (c *collector) take(m message, fds []int) {
	switch {
	case m.Kind == kindListener && len(fds) == 1:
		if c.listeners[m.PID] == nil {
			c.listeners[m.PID] = map[int]int{}
		}
		// The guardian may have fetched it once more.
		if old, ok := c.listeners[m.PID][m.TID]; ok {
			unix.Close(old)
		}
		c.listeners[m.PID][m.TID] = fds[0]
		return
	case m.Kind == kindProcess && m.Process != nil:
		c.r.Processes = slices.DeleteFunc(c.r.Processes, func(p Process) bool {
			return p.PID == m.Process.PID && p.Start == m.Process.Start
		})
		c.r.Processes = append(c.r.Processes, *m.Process)
	case m.Kind == kindProblem:
		c.problem(m.Text)
	case m.Kind == kindDone:
		c.done = m.Err == ""
		c.r.Frozen, c.r.Passes = max(c.r.Frozen, m.Frozen), c.r.Passes+m.Passes
		c.r.Problems = append(c.r.Problems, m.Problems...)
		if m.Err != "" {
			c.problem(m.Err)
		}
	}
	closeAll(fds)
}

func (c *collector) result() Result {
	c.r.Complete = c.done
	for i := range c.r.Processes {
		p := &c.r.Processes[i]
		p.Listener = -1
		for _, tid := range sortedKeys(c.listeners[p.PID]) {
			if fd := c.listeners[p.PID][tid]; p.Listener < 0 {
				p.Listener = fd
			} else {
				p.More = append(p.More, fd)
			}
		}
		delete(c.listeners, p.PID)
		c.r.Complete = c.r.Complete && p.Err == ""
	}
	// Of processes that ended before they could be reported: their children may live.
	for pid, byThread := range c.listeners {
		p := Process{PID: pid, Listener: -1, How: ByTSync}
		for _, tid := range sortedKeys(byThread) {
			p.More = append(p.More, byThread[tid])
		}
		p.Listener, p.More = p.More[0], p.More[1:]
		c.r.Processes = append(c.r.Processes, p)
	}
	slices.SortFunc(c.r.Processes, func(a, b Process) int { return a.PID - b.PID })
	return c.r
}

func sortedKeys(m map[int]int) []int {
	var keys []int
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (p *Process) closeListeners() {
	closeAll(append(p.More, p.Listener))
	p.Listener, p.More = -1, nil
}
