// SPDX-License-Identifier: Apache-2.0

// Package seccomp installs a compiled filter and executes a command under it. It compiles nothing, see package filter.
package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Options of Exec. The zero Options gain nothing and lose nothing that the caller did not have.
type Options struct {
	// NoNewPrivs forbids the command to gain privileges by set-user-id programs. Without it the flag is set only if the
	// kernel asks for it, which it does of everybody without CAP_SYS_ADMIN.
	NoNewPrivs bool
}

// Exec installs the filter on the calling thread and replaces the process by a command, of which argv0 is the path. The
// filter must allow execve; nothing else is called once it is there. Exec only returns with an error. If that is the
// command's own (execve failed), the thread keeps the filter and the process should end.
//
// The other threads stay without a filter and die in execve. All signals to be handled should be off (signal.Reset): a
// handler that runs between the two calls is under the filter.
func Exec(prog []bpf.RawInstruction, o Options, argv0 string, argv, env []string) error {
	if len(argv) == 0 {
		return fmt.Errorf("execute %q: no arguments, not even its name", argv0)
	}
	path, err := unix.BytePtrFromString(argv0)
	if err != nil {
		return fmt.Errorf("execute %q: %w", argv0, err)
	}
	argvp, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return fmt.Errorf("execute %q: arguments: %w", argv0, err)
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return fmt.Errorf("execute %q: environment: %w", argv0, err)
	}
	filter, err := program(prog)
	if err != nil {
		return err
	}
	// The thread is never given back: on an error it has a filter that no other goroutine should meet.
	runtime.LockOSThread()
	if err := restoreFileLimit(); err != nil {
		return err
	}
	if o.NoNewPrivs {
		if err := noNewPrivs(); err != nil {
			return err
		}
	}
	// Neither the collector nor the scheduler shall interrupt from here on: a collection is not going to start, and
	// the time slice is new.
	debug.SetGCPercent(-1)
	runtime.Gosched()
	loaded, errno := loadAndExec(&filter, path, &argvp[0], &envp[0])
	if !loaded && errno == unix.EACCES && !o.NoNewPrivs {
		if err := noNewPrivs(); err != nil {
			return err
		}
		loaded, errno = loadAndExec(&filter, path, &argvp[0], &envp[0])
	}
	runtime.KeepAlive(argvp)
	runtime.KeepAlive(envp)
	if !loaded {
		return fmt.Errorf("install seccomp filter of %d instructions: %w", len(prog), errno)
	}
	return fmt.Errorf("execute %q: %w", argv0, errno)
}

// loadAndExec makes two system calls and nothing else: no stack growth, no scheduler.
//
//go:nosplit
//go:norace
func loadAndExec(filter *unix.SockFprog, path *byte, argv, env **byte) (loaded bool, errno syscall.Errno) {
	_, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(filter)))
	if errno != 0 {
		return false, errno
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(argv)),
		uintptr(unsafe.Pointer(env)))
	return true, errno
}

func program(prog []bpf.RawInstruction) (unix.SockFprog, error) {
	if len(prog) == 0 || len(prog) > unix.BPF_MAXINSNS {
		return unix.SockFprog{}, fmt.Errorf("install seccomp filter: %d instructions, the kernel takes 1 to %d",
			len(prog), unix.BPF_MAXINSNS)
	}
	raw := make([]unix.SockFilter, len(prog))
	for i, ins := range prog {
		raw[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	return unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}, nil
}

func noNewPrivs() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// restoreFileLimit undoes what the Go runtime did to RLIMIT_NOFILE at its start, so that the command has the limit that
// this process was given. Only package syscall knows that limit, and sets it in Exec before it calls execve, also if that
// fails: here for an empty path.
func restoreFileLimit() error {
	if err := syscall.Exec("", []string{""}, nil); !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("restore the limit of open files: got %v, want %w", err, syscall.ENOENT)
	}
	return nil
}
