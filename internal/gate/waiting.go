// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"maps"
	"slices"
)

// waiting is who waits, by the queue's number of the packet.
type waiting struct {
	limit         int
	packet        map[connection]uint32
	held, dropped uint64 // connections, and packets for which there was no room
}

// add a packet. When old is true, the packet that is to be dropped is drop: the one that this one takes the place of,
// or this one itself when there is no room.
//
// The newer SYN of a connection stays: its timestamp is what the client will measure its round trip by, and one with
// another sequence number means that the client has given the older up.
func (w *waiting) add(c connection, id uint32) (drop uint32, old bool) {
	before, again := w.packet[c]
	if !again && len(w.packet) >= w.limit {
		w.dropped++
		return id, true
	}
	if !again {
		w.held++
	}
	w.packet[c] = id
	return before, again
}

// end of the waiting: the packets in the order of their coming.
func (w *waiting) end() []uint32 {
	ids := slices.Sorted(maps.Values(w.packet))
	clear(w.packet)
	return ids
}
