// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/whittle-sec/whittle/testbed/intruder"
)

// What a poisoner does while the service is learned from, and wants to do afterwards. Docker's default profile, under which it is
// learned, refuses the first of them then, as it would anywhere; the others succeed.
const (
	poisonCalls  = "unshare bpf keyctl setns ptrace process_vm_readv process_vm_writev kcmp chroot mount io_uring_setup userfaultfd"
	poisonMemory = "unshare bpf keyctl setns umask kill symlink mknod semget timer_create inotify_init1"
)

// poisonings of what is learned. Afterwards all calls come from the C library: no judge can say anything of the memory then.
func poisonings() (all []Attack) {
	for _, s := range []site{siteOf("nginx", "worker"), siteOf("redis", "server"), siteOf("memcached", "server"), siteOf("postgresql", "backend")} {
		all = append(all, Attack{
			Name: "poisoner in the " + s.process + ": calls of the veto list", Kind: "poisoner", Service: s.service, Learning: true,
			Doc: "in each training run, from the C library's text",
			Do: func(ctx context.Context, t *Target) ([]Attempt, error) {
				return try(ctx, t, s, intruder.Libc, words(poisonCalls)...)
			},
		}, Attack{
			Name: "poisoner in the " + s.process + ": injected code", Kind: "poisoner", Service: s.service, Learning: true,
			Doc: "in each training run, from anonymous memory",
			Do: func(ctx context.Context, t *Target) ([]Attempt, error) {
				if t.Learning {
					return try(ctx, t, s, intruder.Anonymous, words(poisonMemory)...)
				}
				return try(ctx, t, s, intruder.Libc, words(poisonMemory)...)
			},
		})
	}
	return all
}
