// SPDX-License-Identifier: Apache-2.0

// Package origin gathers what the kernel and the mapped files say of a held call: in what memory its instruction lies,
// and whether the program or a library besides the C library needs the call. All that it reads belongs to a container
// and is hostile. It decides nothing.
package origin

import (
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Gatherer reads about held threads, and keeps what it read by file identity. It may be used by many goroutines.
type Gatherer struct{}

// NewGatherer with room for at most entries files; 0 means a default.
func NewGatherer(entries int) *Gatherer { return &Gatherer{} }

// Origin of the call that the thread with this id waits in; ip is the address after its instruction. It counts only if
// the call is still held afterwards.
func (g *Gatherer) Origin(tid int, ip uint64) judge.Origin {
	return judge.Origin{Why: "not built yet"}
}

// Import tells which object that the thread's process has mapped needs the call. It never waits for what a container
// serves; what is not in the cache yet is read within a bound on bytes.
func (g *Gatherer) Import(tid int, call syscalls.Call) judge.Import {
	return judge.Import{Why: "not built yet"}
}
