// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/whittle-sec/whittle/internal/syscalls"

// kernelOwn and last stand in until package syscalls has its tables.
func kernelOwn(a syscalls.ABI) (set syscalls.Set) {
	for _, name := range []string{"rt_sigreturn", "restart_syscall", "exit", "exit_group"} {
		if nr, ok := syscalls.Number(a, name); ok {
			set.Add(nr)
		}
	}
	return set
}

func last(a syscalls.ABI) uint32 { return syscalls.MaxNr - 1 }
