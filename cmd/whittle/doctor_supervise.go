// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/inject"
)

// Checks of what supervision needs of the kernel: to hold calls, and to attach to what runs.

// checkNotify has a thread load a filter with a listener, and asks the listener what it can do. The filter allows
// everything, and ends with the thread.
func checkNotify(context.Context, *app) finding {
	all, err := actions()
	if err != nil {
		return finding{Detail: err.Error()}
	}
	if !slices.Contains(all, "user_notif") {
		return finding{Answer: no, Needs: "Linux 5.0", Fix: "calls can be refused, but not be held and asked about"}
	}
	type answer struct {
		listener, wake unix.Errno
		killable       bool
	}
	told := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		var a answer
		a.killable = knowsFlags(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
		a.listener, a.wake = tryListener()
		told <- a
	}()
	a := <-told
	return notifyFinding(a.listener, a.wake, a.killable)
}

func notifyFinding(listener, wake unix.Errno, killable bool) finding {
	switch listener {
	case 0:
	case unix.EBUSY:
		return finding{Detail: "this process runs under a filter with a listener, beside which there is no second: ask outside of the container"}
	default:
		return finding{Detail: "a listener cannot be had: " + listener.Error()}
	}
	detail := "no wake-up on the caller's processor: a held call costs more (Linux 6.6 has it)"
	switch wake {
	case 0:
		detail = "with wake-up on the caller's processor"
	case unix.EINVAL, unix.ENOTTY:
	default:
		detail = "whether the wake-up is cheap could not be told: " + wake.Error()
	}
	if !killable {
		detail += "; no uninterrupted waits (Linux 5.19 has them; nothing needs them)"
	}
	return finding{Answer: yes, Detail: detail}
}

// knowsFlags without loading anything: the kernel looks at the flags before it reads the program, and there is none.
func knowsFlags(flags uintptr) bool {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, 0)
	return errno == unix.EFAULT
}

// tryListener in the present thread, which is under its filter from then on.
func tryListener() (listener, wake unix.Errno) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return unix.EACCES, 0 // what the kernel would say next
	}
	code := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno, 0
	}
	defer unix.Close(int(fd))
	_, _, wake = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	return 0, wake
}

func checkPidfd(context.Context, *app) finding {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return pidfdFinding(err)
	}
	defer unix.Close(self)
	fd, err := unix.PidfdGetfd(self, self, 0)
	if err == nil {
		unix.Close(fd)
	}
	return pidfdFinding(err)
}

func pidfdFinding(err error) finding {
	switch {
	case err == nil:
		return finding{Answer: yes}
	case errors.Is(err, unix.ENOSYS):
		return finding{Answer: no, Needs: "Linux 5.6", Fix: "nothing can be attached to while it runs; what engines start is supervised all the same"}
	}
	return finding{Detail: err.Error(), Fix: "a seccomp filter around whittle may refuse it: run it outside of containers"}
}

func checkPtrace(context.Context, *app) finding {
	text, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if errors.Is(err, fs.ErrNotExist) {
		return finding{Answer: yes, Detail: "the kernel has no Yama"}
	}
	if err != nil {
		return finding{Detail: err.Error()}
	}
	return ptraceFinding(strings.TrimSpace(string(text)))
}

func ptraceFinding(scope string) finding {
	switch scope {
	case "0", "1", "2":
		return finding{Answer: yes, Detail: "Yama's scope is " + scope + ", which root may pass"}
	case "3":
		return finding{Answer: no, Detail: "Yama's scope is 3: nobody may trace, so nothing can be attached to or sealed while it runs",
			Fix: "set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d, and reboot: the kernel does not lower it"}
	}
	return finding{Detail: "unknown scope " + scope}
}

// checkAttachSeccomp does what `whittle attach` does, to a child of its own, and reads the filter back.
func checkAttachSeccomp(ctx context.Context, _ *app) finding {
	if os.Geteuid() != 0 {
		return finding{Detail: "needs root to tell", Fix: "sudo whittle doctor"}
	}
	self, err := os.Executable()
	if err != nil {
		return finding{Detail: err.Error()}
	}
	child := exec.CommandContext(ctx, "sleep", "60")
	if err := child.Start(); err != nil {
		return finding{Detail: "there is no process to try it with: " + err.Error()}
	}
	defer func() {
		_ = child.Process.Kill() // it may have ended
		_ = child.Wait()         // killed
	}()
	result, err := inject.Run(ctx, self, inject.Request{
		PIDs: []int{child.Process.Pid}, Listener: true, Program: []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}},
	})
	if err != nil {
		return attachFinding(nil, err, nil, nil)
	}
	defer result.Close()
	found, err := inject.Attest(ctx, self, []int{child.Process.Pid})
	return attachFinding(result.Processes, nil, found, err)
}

// attachFinding says what did not work, as far as that is known.
func attachFinding(processes []inject.Process, failed error, found []inject.Attestation, unread error) finding {
	const fix = "a kernel with CONFIG_CHECKPOINT_RESTORE is needed, and whittle must not be under a seccomp filter itself"
	switch {
	case failed != nil:
		return finding{Detail: failed.Error(), Fix: fix}
	case len(processes) != 1:
		return finding{Detail: fmt.Sprintf("%d processes instead of one", len(processes))}
	case processes[0].Err != "":
		return finding{Answer: no, Detail: processes[0].Err, Fix: fix}
	case unread != nil:
		return finding{Detail: unread.Error(), Fix: fix}
	case len(found) != 1 || found[0].Err != "" || len(found[0].Filters) == 0:
		return finding{Answer: no, Detail: "filters can be loaded, and not be read back", Fix: fix}
	}
	return finding{Answer: yes, Detail: fmt.Sprintf("tried on a child, which stood still for %s", millis(processes[0].Pause))}
}

// checkFreezer freezes an empty cgroup.
func checkFreezer(context.Context, *app) finding {
	if os.Geteuid() != 0 {
		return finding{Detail: "needs root to tell", Fix: "sudo whittle doctor"}
	}
	g, err := newCgroup()
	if err != nil {
		return finding{Answer: no, Detail: err.Error(), Fix: hint.Of(err)}
	}
	defer g.remove()
	freeze := filepath.Join(g.dir, "cgroup.freeze")
	err = os.WriteFile(freeze, []byte("1"), 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission): // the file would have to be made
		return finding{Answer: no, Needs: "Linux 5.2", Fix: "nothing needs to be done: processes are attached to one by one, until none is new"}
	case err != nil:
		return finding{Detail: err.Error()}
	}
	return finding{Answer: yes, Detail: freezeDetail(os.WriteFile(freeze, []byte("0"), 0))}
}

func freezeDetail(thawed error) string {
	if thawed != nil {
		return "it froze, and did not thaw: " + thawed.Error()
	}
	return ""
}
