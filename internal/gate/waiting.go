// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"cmp"
	"maps"
	"slices"
)

// waiting is who waits.
type waiting struct {
	limit         int
	packet        map[connection]queued
	held, dropped uint64 // connections, and packets for which there was no room
}

// queued packet: its number in the queue, and the mark it came with.
type queued struct{ id, mark uint32 }

// add a packet. When old is true, the packet that is to be dropped is drop: the one that this one takes the place of,
// or this one itself when there is no room.
//
// The newer SYN of a connection stays: its timestamp is what the client will measure its round trip by, and one with
// another sequence number means that the client has given the older up.
func (w *waiting) add(c connection, p queued) (drop uint32, old bool) {
	before, again := w.packet[c]
	if !again && len(w.packet) >= w.limit {
		w.dropped++
		return p.id, true
	}
	if !again {
		w.held++
	}
	w.packet[c] = p
	return before.id, again
}

// end of the waiting: the packets in the order of their coming.
func (w *waiting) end() []queued {
	all := slices.SortedFunc(maps.Values(w.packet), func(a, b queued) int { return cmp.Compare(a.id, b.id) })
	clear(w.packet)
	return all
}
