// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Serve is the helper's side of Run, Kick and Attest: it reads one message from the socket and does what that asks.
func Serve(socket int) error {
	runtime.LockOSThread()
	// What a service manager or a terminal sends to everybody must not end a process that holds tracees.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	// No pause of the garbage collector while a thread stands still; a helper does not live long.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(256 << 20)
	unix.CloseOnExec(socket)
	c := conn(socket)
	m, fds, err := c.receive()
	if err != nil {
		return fmt.Errorf("inject: wait to be asked (this command is the agent's): %w", err)
	}
	want := map[kind]int{kindGuard: 4, kindTrace: 5, kindRecover: 2, kindAttest: 1, kindKick: 1}[m.Kind]
	if want == 0 || len(fds) != want {
		closeAll(fds)
		return fmt.Errorf("inject: asked for %q with %d descriptors, not %d", m.Kind, len(fds), want)
	}
	switch m.Kind {
	case kindAttest:
		return serveAttest(c, fds[0])
	case kindKick:
		return serveKick(c, fds[0])
	}
	var r Request
	if err := readPayload(fds[0], &r); err != nil {
		return err
	}
	j, _, err := openJournal(fds[1])
	if err != nil {
		return err
	}
	switch m.Kind {
	case kindGuard:
		g := guardian{req: r, j: j, out: c, caller: m.Caller, fds: fds}
		return g.run()
	case kindTrace:
		return serveTrace(r, j, m, fds)
	}
	g := guardian{req: r, j: j, out: c, fds: fds}
	g.recover()
	return nil
}

// serveTrace is the tracer's life. From here on its thread has a file table of its own, in which alone is the guard's write
// end; another thread takes it out of the other table.
func serveTrace(r Request, j *journal, m message, fds []int) error {
	out, guard, write := conn(fds[4]), fds[2], fds[3]
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return fmt.Errorf("inject: take the guard: %w", err)
	}
	taken := make(chan error)
	go func() { taken <- unix.Close(write) }() // on another thread: this one is locked
	if err := <-taken; err != nil {
		return fmt.Errorf("inject: take the guard: %w", err)
	}
	t := newTracer(r, j, out, guard, os.Getppid(), m.Caller)
	err := t.run()
	done := message{Kind: kindDone, Frozen: t.frozen, Passes: t.passes, Problems: t.problems}
	if err != nil {
		done.Err = err.Error()
	}
	if sent := out.send(done); sent != nil && err == nil && !errors.Is(sent, unix.EPIPE) {
		err = sent
	}
	return nil
}
