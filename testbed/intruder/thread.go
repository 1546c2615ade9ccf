// SPDX-License-Identifier: Apache-2.0

package intruder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// thread that is traced and stands still.
type thread struct {
	tid     int
	before  unix.PtraceRegs // as it was found
	signals []unix.Signal   // that came meanwhile: it gets them when nobody traces it
	gone    bool
}

// ended instead of stopping.
type ended struct{ status unix.WaitStatus }

func (e *ended) Error() string { return fmt.Sprintf("it has ended: status %#x", int(e.status)) }

func seize(tid int) (t *thread, err error) {
	if err := unix.PtraceSeize(tid); err != nil {
		return nil, fmt.Errorf("seize: %w", err)
	}
	t = &thread{tid: tid}
	defer func() {
		if err != nil && !t.gone {
			err = errors.Join(err, unix.PtraceDetach(tid))
		}
	}()
	if err := t.interrupt(); err != nil {
		return nil, err
	}
	for {
		if err := unix.PtraceGetRegs(tid, &t.before); err != nil {
			return nil, fmt.Errorf("read registers: %w", err)
		}
		// It stands behind its execve where a program begins, and behind no instruction.
		code := make([]byte, len(trap))
		if err := t.read(t.before.PC()-uint64(len(trap)), code); waitsInCall(&t.before) && err == nil && bytes.Equal(code, trap) {
			return t, nil
		}
		if err := t.toNextCall(); err != nil { // it computes
			return nil, err
		}
	}
}

// detach from it as it was found: a call that was interrupted is made again, and one that was done is not.
func (t *thread) detach() error {
	if t.gone {
		return nil
	}
	err := unix.PtraceSetRegs(t.tid, &t.before)
	if err := errors.Join(err, unix.PtraceDetach(t.tid)); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	for _, signal := range t.signals {
		if err := unix.Kill(t.tid, signal); err != nil {
			return fmt.Errorf("signal it again: %w", err)
		}
	}
	return nil
}

func (t *thread) interrupt() error {
	if err := unix.PtraceInterrupt(t.tid); err != nil {
		return fmt.Errorf("interrupt: %w", err)
	}
	_, err := t.stopped(time.Time{})
	return err
}

// toNextCall of a thread that stands still: it stops again when that is done, or interrupted and to be made again.
func (t *thread) toNextCall() error {
	for kept := -1; kept != len(t.signals); { // until it stops where it enters the call, and not for a signal
		if err := unix.PtraceSyscall(t.tid, 0); err != nil {
			return fmt.Errorf("go on to its next call: %w", err)
		}
		kept = len(t.signals)
		if _, err := t.stopped(time.Time{}); err != nil {
			return err
		}
	}
	if err := unix.PtraceInterrupt(t.tid); err != nil {
		return fmt.Errorf("interrupt its call: %w", err)
	}
	if err := unix.PtraceCont(t.tid, 0); err != nil {
		return fmt.Errorf("go on with its call: %w", err)
	}
	_, err := t.stopped(time.Time{})
	return err
}

// patience with a thread that was told to stop: it stops at once, or something is wrong.
const patience = time.Minute

// stopped waits for its next stop, until the time; the zero time is with patience, and an error otherwise. A signal that it
// stops for is kept from it.
func (t *thread) stopped(until time.Time) (in bool, err error) {
	end := until
	if until.IsZero() {
		end = time.Now().Add(patience)
	}
	for polls := 1; ; polls++ {
		var status unix.WaitStatus
		pid, err := unix.Wait4(t.tid, &status, unix.WALL|unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return false, fmt.Errorf("wait: %w", err)
		case pid == 0:
			// A filter may kill the first thread only: that is not told as long as there are others.
			if polls%50 == 0 {
				if status, dead := t.dead(); dead {
					t.gone = true
					return false, &ended{status}
				}
			}
			if time.Now().After(end) {
				if until.IsZero() {
					err = errors.New("it does not stop")
				}
				return false, err
			}
			time.Sleep(100 * time.Microsecond)
			continue
		case !status.Stopped():
			t.gone = true
			return false, &ended{status}
		}
		if s := status.StopSignal(); s != unix.SIGTRAP {
			t.signals = append(t.signals, s)
		}
		return true, nil
	}
}

// dead but not gone: with what, by /proc/PID/stat.
func (t *thread) dead() (unix.WaitStatus, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.tid))
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if err != nil || len(fields) < 50 || fields[0] != "Z" {
		return 0, false
	}
	code, err := strconv.Atoi(fields[49])
	return unix.WaitStatus(code), err == nil
}

// maxSteps of a call: as many signals may come meanwhile.
const maxSteps = 100

// call at an instruction of so many bytes. It is stepped over: what is behind it is not executed.
func (t *thread) call(at uint64, size int, call Call) (value int64, waits bool, err error) {
	regs := toCall(t.before, at, call)
	if err := unix.PtraceSetRegs(t.tid, &regs); err != nil {
		return 0, false, fmt.Errorf("set registers: %w", err)
	}
	until := time.Now().Add(Limit)
	for range maxSteps { // a signal stops it before it has made the call
		if err := unix.PtraceSingleStep(t.tid); err != nil {
			return 0, false, fmt.Errorf("step: %w", err)
		}
		in, err := t.stopped(until)
		if err == nil && !in {
			waits, err = true, t.interrupt()
		}
		if err == nil {
			err = unix.PtraceGetRegs(t.tid, &regs)
		}
		if err != nil {
			return 0, waits, err
		}
		if !waits && regs.PC() != at+uint64(size) {
			continue
		}
		value := resultOf(&regs, call.ABI)
		if waits || !restarts(value) {
			return value, waits, nil
		}
		// A signal, which is kept from it, came while the call was held or slept: the kernel would make it again.
		regs = toCall(t.before, at, call)
		if err := unix.PtraceSetRegs(t.tid, &regs); err != nil {
			return 0, false, fmt.Errorf("set registers: %w", err)
		}
	}
	return 0, false, fmt.Errorf("it does not come behind the instruction at %#x, but to %#x", at, regs.PC())
}

// restarts tells the kernel's own errnos (ERESTARTSYS to ERESTART_RESTARTBLOCK), which no program sees.
func restarts(value int64) bool { return value >= -516 && value <= -512 }

// errand is a call that prepares others. No filter sees it. Its arguments are the caller's to keep valid.
func (t *thread) errand(name string, args ...uint64) (uint64, error) {
	call, err := Of(nativeABI, name, args...)
	if err != nil {
		return 0, err
	}
	if err := unix.PtraceSetOptions(t.tid, unix.PTRACE_O_SUSPEND_SECCOMP); err != nil {
		return 0, fmt.Errorf("suspend its filters: %w", err)
	}
	at := t.before.PC() - uint64(len(trap))
	value, waits, err := t.call(at, len(trap), call)
	if err == nil {
		err = unix.PtraceSetOptions(t.tid, 0)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s for a preparation: %w", name, err)
	case waits:
		return 0, fmt.Errorf("%s for a preparation: it does not return", name)
	case value < 0 && value > -4096:
		return 0, fmt.Errorf("%s for a preparation: %w", name, unix.Errno(-value))
	}
	return uint64(value), nil
}
