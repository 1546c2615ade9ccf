// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// How many listeners are kept. Descriptors are what runs out first: spareFDs of them are for sockets and peers.
const (
	maxKept       = 20000
	maxKeptByUser = 1000 // of a uid other than 0
	spareFDs      = 1500
)

// listener is one that is kept. The loop owns it; while it is busy a refuser uses its descriptor.
type listener struct {
	Kept
	busy bool
	gone bool // to be closed when the refuser is done
}

// table of listeners.
type table struct {
	max         int
	next        uint64
	byID        map[uint64]*listener
	byContainer map[string][]*listener
	byUser      map[uint32]int
}

func newTable() *table {
	t := &table{max: maxKept, next: 1, byID: map[uint64]*listener{}, byContainer: map[string][]*listener{}, byUser: map[uint32]int{}}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < maxKept+spareFDs {
		t.max = max(int(limit.Cur)-spareFDs, int(limit.Cur)/2)
	}
	return t
}

var errFull = errors.New("too many listeners")

// add a listener, whose descriptor the table then owns. One that is there already is returned instead, with false.
func (t *table) add(k Kept) (*listener, bool, error) {
	live := false
	for _, l := range t.byContainer[k.Container] {
		if Same(l.FD, k.FD) {
			return l, false, nil
		}
		// A container that is restarted under its id has a dead listener whose end was not read yet.
		live = live || l.UID == k.UID && !hasHungUp(l.FD)
	}
	if len(t.byID) >= t.max {
		return nil, false, fmt.Errorf("%w: %d in all", errFull, t.max)
	}
	if k.UID != 0 && t.byUser[k.UID] >= maxKeptByUser {
		return nil, false, fmt.Errorf("%w: %d of uid %d", errFull, maxKeptByUser, k.UID)
	}
	if k.ID == 0 {
		k.ID = t.next
		k.Exec = k.Exec || live
	}
	if t.byID[k.ID] != nil {
		return nil, false, fmt.Errorf("there are two listeners with id %d", k.ID)
	}
	t.next = max(t.next, k.ID+1)
	l := &listener{Kept: k}
	t.byID[k.ID] = l
	t.byContainer[k.Container] = append(t.byContainer[k.Container], l)
	t.byUser[k.UID]++
	return l, true, nil
}

// remove a listener; its descriptor is the caller's again.
func (t *table) remove(l *listener) {
	delete(t.byID, l.ID)
	rest := t.byContainer[l.Container][:0]
	for _, other := range t.byContainer[l.Container] {
		if other != l {
			rest = append(rest, other)
		}
	}
	if t.byContainer[l.Container] = rest; len(rest) == 0 {
		delete(t.byContainer, l.Container)
	}
	if t.byUser[l.UID]--; t.byUser[l.UID] == 0 {
		delete(t.byUser, l.UID)
	}
}
