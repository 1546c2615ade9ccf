// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/whittle-sec/whittle/testbed/intruder"
)

// What a poisoner does while the service is learned from, and wants to do afterwards. No default profile is in his way while it is
// learned, so that all of it reaches the kernel. Services teach some calls of the veto list themselves (judge.Suspect), and so
// can a poisoner who uses their code.
const (
	poisonCalls  = "unshare bpf keyctl setns ptrace process_vm_readv process_vm_writev kcmp mount io_uring_setup userfaultfd"
	poisonMemory = "unshare bpf keyctl setns umask kill symlink mknod semget timer_create inotify_init1 chroot execve"
	poisonTaught = "chroot execve"
)

// poisonings of what is learned. Afterwards all calls come from the C library: no judge can say anything of the memory then.
func poisonings() (all []Attack) {
	for _, s := range []site{siteOf("nginx", "worker"), siteOf("redis", "server"), siteOf("memcached", "server"), siteOf("postgresql", "backend")} {
		all = append(all, poisoning(s, "calls of the veto list", intruder.Libc, words(poisonCalls)))
		calls := words(poisonMemory)
		if s.service == "postgresql" {
			calls = without(calls, "umask", "kill") // its backends make them
		}
		all = append(all, poisoning(s, "injected code", intruder.Anonymous, calls))
		if s.service == "nginx" {
			all = append(all, poisoning(s, "calls of the veto list that services teach", intruder.Libc, words(poisonTaught)))
		}
	}
	return all
}

func poisoning(s site, name string, from intruder.Origin, calls []string) Attack {
	return Attack{
		Name: "poisoner in the " + s.process + ": " + name, Kind: "poisoner", Service: s.service, Learning: true,
		Doc: "in each training run, from " + from.String() + "; afterwards from libc",
		Do: func(ctx context.Context, t *Target) ([]Attempt, error) {
			if t.Learning {
				return try(ctx, t, s, from, calls...)
			}
			return try(ctx, t, s, intruder.Libc, calls...)
		},
	}
}
