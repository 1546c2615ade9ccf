// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"sync/atomic"
	"time"
)

// A boot ends at readiness, the first connection accepted, but not at once: Redis accepts connections while it still loads
// its data, and makes calls afterwards that only a boot needs. So the boot goes on until none of these was asked for during
// bootQuiet, and for bootMost at most, which bounds what somebody who connects at the first moment can do with them.
const (
	bootQuiet = 2 * time.Second
	bootMost  = 30 * time.Second
)

// boot of a container, as far as its ward has watched it.
type boot struct {
	seen  atomic.Bool  // the container was booting when its ward looked
	ready atomic.Int64 // when it was first seen to be ready, in ns; 0: not yet
	asked atomic.Int64 // when a call was last allowed only because of the boot
	done  atomic.Bool
}

// booting tells that the kernel has the container in its boot.
func (b *boot) booting() { b.seen.Store(true) }

// goesOn tells whether the boot of a container that is ready goes on.
func (b *boot) goesOn(now time.Time) bool {
	if !b.seen.Load() || b.done.Load() {
		return false
	}
	at := now.UnixNano()
	if b.ready.CompareAndSwap(0, at) {
		b.asked.Store(at)
	}
	if at-b.asked.Load() < int64(bootQuiet) && at-b.ready.Load() < int64(bootMost) {
		return true
	}
	b.done.Store(true)
	return false
}

// late tells whether the container is ready and its boot is not over.
func (b *boot) late() bool { return b.ready.Load() != 0 && !b.done.Load() }

func (b *boot) needed(now time.Time) { b.asked.Store(now.UnixNano()) }
