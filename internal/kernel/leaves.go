// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// gapLeft is what a container without a cgroup of its own is missing when one of its programs left its mount namespace.
const gapLeft = "a program left the container's mount namespace, by which it is known, and was not seen from then on"

// leavers are the calls that lead into another mount namespace when they are asked for one. clone3 has its flags in memory,
// which is never read.
var leavers = []struct {
	call  string
	asked func(arg uint64) bool
}{
	{"unshare", func(flags uint64) bool { return flags&unix.CLONE_NEWNS != 0 }},
	{"clone", func(flags uint64) bool { return flags&unix.CLONE_NEWNS != 0 }},
	{"setns", func(kind uint64) bool { return kind == 0 || kind&unix.CLONE_NEWNS != 0 }}, // 0: whatever the file is
}

// left tells whether anything in the container may have moved out of what it is known by. A call that failed counts, too.
func (c *container) left() bool {
	if c.target.CgroupID > 1 {
		return false
	}
	for key := range c.args {
		if observe.Lane(c.cells[key.Cell].Lane) == observe.LaneRuntime { // runtimes make namespaces, and join them
			continue
		}
		for _, l := range leavers {
			nr, ok := syscalls.Number(syscalls.ABI(key.Abi), l.call)
			if ok && nr == uint32(key.Nr) && l.asked(key.Value) {
				return true
			}
		}
	}
	return false
}
