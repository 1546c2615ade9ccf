// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
)

// allocatorReason is in the policy's evidence, and in the journal.
const allocatorReason = "what an allocator does with its own memory, asked for by the C library; the sanitized twin has another allocator, and never asks"

// allocators are calls by which an allocator manages its caller's own memory, and what it seeds itself with. mmap is not among them:
// every twin's loader makes it, and who is given it may map code.
var allocators = []string{"brk", "munmap", "mremap", "madvise", "getrandom"}

// The advice that allocators give: the memory is not needed for now (MADV_DONTNEED, MADV_FREE), or large pages are (not) wanted.
var allocatorAdvice = []uint64{4, 8, 14, 15}

// allocates tells whether a call is one that no twin of the kind can reach, because its allocator is another one than production's.
// Who makes it from the C library's own code gets what every program gets at its start.
func allocates(kind oracle.Kind, c judge.Case) bool {
	q, from := c.Question, c.Evidence.Origin
	if kind != oracle.Sanitizer || from.Class != judge.File || !libc(path.Base(from.Path)) {
		return false
	}
	name := q.Call.String()
	if name == "madvise" && !slices.Contains(allocatorAdvice, q.Args[2]&0xffffffff) {
		return false
	}
	return slices.Contains(allocators, name)
}

// libc tells whether a file is a C library or its loader, by its name. Origin.Class has it that the image brought it.
func libc(name string) bool {
	for _, prefix := range []string{"libc.so.", "libc-2.", "ld-linux", "ld-2.", "ld-musl-", "libc.musl-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// ownMemory parks a call of production's allocator until it is learned. Who asks for what the policy does not take is not heard for
// ever: a role that is not known, a call that a person took away.
func (t *twin) ownMemory(k loop.Key, c looping) (parked bool, why string) {
	if t.gave[k] >= maxGiven || len(t.gave) >= maxGivenKeys {
		return false, "it is an allocator's, but the policy does not take it for this program"
	}
	if parked, why = t.park(c); parked && !slices.Contains(t.given, k) {
		if t.gave == nil {
			t.gave = map[loop.Key]int{}
		}
		t.gave[k]++
		t.given = append(t.given, k)
	}
	return parked, why
}

// Several threads may ask before the policy has it.
const (
	maxGiven     = 8
	maxGivenKeys = 1024
)

// give the calls of production's allocator, which need no loop.
func (d *driver) give(ctx context.Context) {
	d.mu.Lock()
	given := d.given
	d.given = nil
	d.mu.Unlock()
	if len(given) == 0 {
		return
	}
	if !d.teach(ctx, given, "production's allocator asked for what no twin reaches", allocatorReason) {
		return
	}
	d.settle(key{}, "")
	d.tellOf(loop.Record{}, "learned "+keyNames(given)+": "+allocatorReason)
}
