// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// makeCalls in a process, as code that an intruder has brought into it would: by ptrace, at the syscall instruction that it
// waits at, or comes to next. The process does not notice.
func makeCalls(t *testing.T, pid int, names ...string) (results map[string]int) {
	t.Helper()
	results = map[string]int{}
	errs := make(chan error, 1)
	go func() { // a thread that traces is the only one that may
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		errs <- traceCalls(pid, names, results)
	}()
	if err := <-errs; err != nil {
		t.Fatalf("make %v in process %d: %v", names, pid, err)
	}
	return results
}

func traceCalls(pid int, names []string, results map[string]int) (err error) {
	if err := unix.PtraceSeize(pid); err != nil {
		return fmt.Errorf("seize: %w", err)
	}
	var signals []unix.Signal // that came meanwhile: it gets them when nobody traces it
	defer func() {
		if detach := unix.PtraceDetach(pid); err == nil && detach != nil {
			err = fmt.Errorf("detach: %w", detach)
		}
		for _, signal := range signals {
			if again := unix.Kill(pid, signal); err == nil && again != nil {
				err = fmt.Errorf("signal it again: %w", again)
			}
		}
	}()
	if err := unix.PtraceInterrupt(pid); err != nil {
		return fmt.Errorf("interrupt: %w", err)
	}
	if err := stopped(pid, &signals); err != nil {
		return err
	}
	var before unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &before); err != nil {
		return fmt.Errorf("read registers: %w", err)
	}
	for !waitsInCall(&before) { // it computes
		if err := toNextCall(pid, &signals); err != nil {
			return err
		}
		if err := unix.PtraceGetRegs(pid, &before); err != nil {
			return fmt.Errorf("read registers: %w", err)
		}
	}
	for _, name := range names {
		nr, ok := syscalls.Number(kernel.NativeABI, name)
		if !ok {
			return fmt.Errorf("no call %s", name)
		}
		// Arguments that do no harm where the call is allowed: no descriptor, no path, nobody.
		first := ^uint64(0)
		if name == "execve" {
			first = 0 // EFAULT
		}
		regs := toCall(before, nr, first)
		if err := unix.PtraceSetRegs(pid, &regs); err != nil {
			return fmt.Errorf("set registers: %w", err)
		}
		for regs.PC() != before.PC() { // a signal stops it before it has made the call
			if err := unix.PtraceSingleStep(pid); err != nil {
				return fmt.Errorf("step: %w", err)
			}
			if err := stopped(pid, &signals); err != nil {
				return err
			}
			if err := unix.PtraceGetRegs(pid, &regs); err != nil {
				return fmt.Errorf("read registers: %w", err)
			}
		}
		results[name] = int(resultOf(&regs))
	}
	// As it was: a call that was interrupted is made again, and one that was done is not.
	if err := unix.PtraceSetRegs(pid, &before); err != nil {
		return fmt.Errorf("set registers: %w", err)
	}
	return nil
}

// toNextCall of a traced process that has stopped: it stops again when that is done, or interrupted and to be made again.
func toNextCall(pid int, signals *[]unix.Signal) error {
	for kept := -1; kept != len(*signals); { // until it stops where it enters the call, and not for a signal
		if err := unix.PtraceSyscall(pid, 0); err != nil {
			return fmt.Errorf("go on to its next call: %w", err)
		}
		kept = len(*signals)
		if err := stopped(pid, signals); err != nil {
			return err
		}
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		return fmt.Errorf("interrupt its call: %w", err)
	}
	if err := unix.PtraceCont(pid, 0); err != nil {
		return fmt.Errorf("go on with its call: %w", err)
	}
	return stopped(pid, signals)
}

// stopped waits for a traced process's next stop. A signal that it stops for is kept from it.
func stopped(pid int, signals *[]unix.Signal) error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case !status.Stopped():
			return fmt.Errorf("it ended: %#x", status)
		case status.StopSignal() != unix.SIGTRAP:
			*signals = append(*signals, status.StopSignal())
		}
		return nil
	}
}

// refusedIn a process: every one of the calls, with EPERM.
func refusedIn(t *testing.T, pid int, names ...string) {
	t.Helper()
	for name, got := range makeCalls(t, pid, names...) {
		if got != -int(unix.EPERM) {
			t.Errorf("%s in process %d (%s) returned %d, want %d", name, pid, commandOf(pid), got, -int(unix.EPERM))
		}
	}
}

func commandOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // for a message
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}

// childrenOf a process.
func childrenOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.FieldsSeq(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, child)
	}
	slices.Sort(pids)
	return pids
}
