// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"github.com/whittle-sec/whittle/internal/cve"
)

// looksAt are the registers that the functions in uses look at.
var looksAt = map[string][]int{
	"socket": {0, 1, 2}, "clone": {0}, "clone3": {}, "mprotect": {2}, "pkey_mprotect": {2}, "mmap": {2, 3}, "mmap2": {2, 3},
	"ioctl": {1}, "prctl": {0}, "personality": {0}, "setsockopt": {1, 2}, "kill": {0, 1},
	"chmod": {1}, "fchmod": {1}, "fchmodat": {2}, "fchmodat2": {2}, "mknod": {1}, "mknodat": {2},
}

// Telling are the arguments of the question that tell one use of its call from another; the others are zero. Who has said
// yes to one question has not said yes to one whose telling arguments are others.
func (q Question) Telling() (told [6]uint64) {
	if q.Arguments {
		return q.Args
	}
	for _, i := range looksAt[q.Call.String()] {
		told[i] = q.Args[i]
	}
	for _, arg := range gates().args {
		registers, _ := cve.Registers(q.Call, arg)
		for _, r := range registers {
			told[r.Index%6] = q.Args[r.Index%6]
		}
	}
	return told
}
