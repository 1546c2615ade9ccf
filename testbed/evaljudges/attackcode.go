// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/testbed/intruder"
)

// injected are the kinds of memory that are no service's code.
var injected = []intruder.Origin{
	intruder.Anonymous, intruder.Protected, intruder.Stack, intruder.Heap, intruder.Memfd, intruder.Writable, intruder.Text, intruder.Dropped,
}

var described = map[intruder.Origin]string{
	intruder.Anonymous: "anonymous memory", intruder.Protected: "data that was made executable", intruder.Stack: "the stack",
	intruder.Heap: "the heap", intruder.Memfd: "a memfd", intruder.Writable: "a writable mapping of the C library's file",
	intruder.Text: "the C library's text, overwritten", intruder.Dropped: "a library that was dropped to /tmp",
}

// injections of code: every kind of memory in the worker that faces the network, each in a container of its own, and all in one
// container in the other services.
func injections() (all []Attack) {
	const kind = "injected code"
	worker := siteOf("nginx", "worker")
	for _, origin := range injected {
		all = append(all, Attack{
			Name: "shellcode in the worker: " + origin.String(), Kind: kind, Service: worker.service,
			Doc: "code in " + described[origin] + " makes calls that look harmless, and some that do not",
			Do: func(ctx context.Context, t *Target) ([]Attempt, error) {
				return try(ctx, t, worker, origin, words(worker.own+" bind execve mprotect unshare")...)
			},
		})
	}
	for _, s := range sites {
		if s.service == worker.service && s.process == worker.process {
			continue
		}
		all = append(all, Attack{
			Name: "shellcode in the " + s.process, Kind: kind, Service: s.service, Doc: "from each kind of memory, one after the other",
			Do: func(ctx context.Context, t *Target) ([]Attempt, error) {
				calls, err := named2calls(nativeABI(), words(s.own+" setuid execve")...)
				if err != nil {
					return nil, err
				}
				return tryAll(ctx, t, s, injected, calls...)
			},
		})
	}
	return all
}

// group of calls that serve one purpose of an intruder.
type group struct{ kind, doc, calls string }

var groups = []group{
	{"programs", "ret2libc: another program, or a process for it", "execve execveat"},
	{"namespaces and mounts", "a user namespace, the host's namespaces, mounts", "unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen mount_setattr"},
	{"keyring, bpf, io_uring, userfaultfd", "large parts of the kernel", "keyctl add_key request_key bpf io_uring_setup io_uring_enter io_uring_register userfaultfd perf_event_open fanotify_init modify_ldt"},
	{"other processes", "into other processes", "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise"},
	{"modules and the host", "modules, handles of the host's files, clocks, devices", "init_module finit_module delete_module kexec_load open_by_handle_at reboot swapon acct syslog sethostname settimeofday clock_settime adjtimex"},
	{"code reuse", "calls that the program does not import", "splice vmsplice tee memfd_create msgget shmat personality timer_create semget shmget mq_open remap_file_pages mbind setxattr"},
	{"memory", "memory that can be written and executed", "mprotect mmap pkey_mprotect"},
}

// reuses of the service's own code, by a chain of return addresses through the C library: its calls come from a file of the image.
func reuses() (all []Attack) {
	for _, s := range sites {
		whole := s.process == "worker" && s.service == "nginx"
		merged := group{kind: "", doc: "calls of the veto list"}
		for _, g := range groups {
			switch {
			case whole || g.kind == "code reuse" || g.kind == "memory":
				all = append(all, reuse(s, g.kind, g))
			default:
				merged.calls += " " + g.calls
			}
		}
		if !whole {
			all = append(all, reuse(s, "veto list", merged))
		}
		all = append(all, reuse(s, "another's calls", group{"code reuse", "calls that the program can make and this role never does", s.foreign}))
	}
	return all
}

func reuse(s site, name string, g group) Attack {
	if g.kind == "" {
		g.kind = name
	}
	return Attack{
		Name: fmt.Sprintf("code reuse in the %s: %s", s.process, name), Kind: g.kind, Service: s.service, Doc: g.doc + ", from the C library's text",
		Do: func(ctx context.Context, t *Target) ([]Attempt, error) {
			calls := words(g.calls)
			if nativeABI() == syscalls.X86_64 {
				return try(ctx, t, s, intruder.Libc, calls...)
			}
			return try(ctx, t, s, intruder.Libc, without(calls, "dup2", "chmod", "chown", "symlink", "link", "unlink", "getpgrp", "modify_ldt")...)
		},
	}
}

// without what newer architectures do not have.
func without(calls []string, those ...string) (out []string) {
	none := " " + strings.Join(those, " ") + " "
	for _, c := range calls {
		if !strings.Contains(none, " "+c+" ") {
			out = append(out, c)
		}
	}
	return out
}

// otherABIs are ways around a filter that knows only the machine's own numbers.
func otherABIs() (all []Attack) {
	if nativeABI() != syscalls.X86_64 {
		return nil
	}
	// Their masters put another in the place of one that the filter kills.
	for _, s := range []site{siteOf("nginx", "worker"), siteOf("php-fpm", "worker")} {
		for _, abi := range []syscalls.ABI{syscalls.I386, syscalls.X32} {
			all = append(all, Attack{
				Name: fmt.Sprintf("%v calls in the %s", abi, s.process), Kind: "another ABI", Service: s.service, Doc: "the numbers of another ABI, from the C library where it has the bytes, and from memory",
				Do: func(ctx context.Context, t *Target) ([]Attempt, error) {
					calls, err := named2calls(abi, words("execve unshare bpf kill getpgrp setuid")...)
					if err != nil {
						return nil, err
					}
					return tryAll(ctx, t, s, []intruder.Origin{intruder.Libc, intruder.Anonymous, intruder.Dropped}, calls...)
				},
			})
		}
	}
	return all
}
