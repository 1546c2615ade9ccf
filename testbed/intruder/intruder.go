// SPDX-License-Identifier: Apache-2.0

// Package intruder is an attacker inside of a process: it has the process make system calls of its choice, with arguments of
// its choice, from memory of its choice, by ptrace. It stands for code that somebody has brought into a service, and for a
// chain of return addresses that goes through the service's own code. The process does not notice, and goes on.
//
// It does not judge what became of a call, and its calls are chosen so that they do no harm where they are let through.
package intruder

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Origin of a call: in what kind of memory its instruction lies.
type Origin uint8

const (
	Waiting   Origin = iota // the instruction that the thread waits at: whatever it is, it is the service's own
	Libc                    // the C library's, as a chain of return addresses reaches it
	Program                 // the main executable's
	Vdso                    // the kernel's own page
	Anonymous               // memory of no file that is writable and executable
	Protected               // data that was made executable: writable first, executable then
	Stack                   // the main thread's, made executable
	Heap                    // [heap], made executable
	Memfd                   // a file without a name
	Writable                // a private mapping of the C library's file that is writable and executable
	Text                    // the C library's text, overwritten in memory
	Dropped                 // a file that the intruder has written to the container's /tmp
)

// Origins are all of them.
var Origins = []Origin{Waiting, Libc, Program, Vdso, Anonymous, Protected, Stack, Heap, Memfd, Writable, Text, Dropped}

var originWords = [...]string{
	"where it waits", "libc", "program", "vdso", "anonymous", "protected", "stack", "heap", "memfd", "writable", "text", "dropped",
}

func (o Origin) String() string { return originWords[o] }

// Injected reports whether the code is the intruder's, and not the service's own.
func (o Origin) Injected() bool { return o >= Anonymous }

// Limit of the wait for one call.
const Limit = 5 * time.Second

// Result of a call.
type Result struct {
	Call
	// Value that it returned; an error is its negative number.
	Value int64
	// IP is the address behind the instruction, and Mapping what /proc/PID/maps said of it when the call was made.
	IP      uint64
	Mapping string
	// Waits: it had not returned within Limit, and was interrupted.
	Waits bool
	// Killed by this signal, instead of an answer: the process is gone.
	Killed unix.Signal
}

// Make calls in a thread, one after the other, from one kind of memory, until one kills it. The memory is made ready with the thread's seccomp
// filters suspended: how the intruder came by it is another attack. Everything is put back.
func Make(tid int, from Origin, calls ...Call) (results []Result, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // who traces is the only one that may; it ends with the goroutine, and lets go of what is dead
		results, err = trace(tid, from, calls)
	}()
	<-done
	if err != nil {
		return results, fmt.Errorf("make calls in thread %d from %v: %w", tid, from, err)
	}
	return results, nil
}

func trace(tid int, from Origin, calls []Call) (results []Result, err error) {
	t, err := seize(tid)
	if err != nil {
		return nil, err
	}
	defer func() {
		if end := t.detach(); err == nil {
			err = end
		}
	}()
	for _, call := range calls {
		r, err := t.from(from, call)
		if err != nil {
			return results, fmt.Errorf("%v: %w", call, err)
		}
		results = append(results, r)
		if r.Killed != 0 {
			break
		}
	}
	return results, nil
}

// from makes one call. Another call may need another instruction.
func (t *thread) from(origin Origin, call Call) (r Result, err error) {
	code, ok := instruction(call.ABI)
	if !ok {
		return r, fmt.Errorf("no instruction makes calls of %s here", call.ABI)
	}
	p, err := t.place(origin, code)
	if err != nil {
		return r, err
	}
	defer func() {
		if undo := p.undo(); err == nil {
			err = undo
		}
	}()
	r = Result{Call: call, IP: p.at + uint64(len(code))}
	if m, ok, err := t.mapping(p.at); err != nil {
		return r, err
	} else if ok {
		r.Mapping = m.line
	}
	r.Value, r.Waits, err = t.call(p.at, len(code), call)
	var end *ended
	switch {
	case errors.As(err, &end) && end.status.Signaled():
		r.Killed, err = end.status.Signal(), nil
	case err == nil && r.Waits:
		// The step is still to be told of, by a signal that must not reach it: another call takes that.
		_, err = t.errand("getpid")
	}
	return r, err
}
