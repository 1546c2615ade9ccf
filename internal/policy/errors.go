// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// ErrTooLarge is returned, wrapped, for a policy of more than MaxSize bytes.
var ErrTooLarge = errors.New("policy is larger than 8 MiB")

// VersionError is a policy in a format that this Whittle does not read.
type VersionError struct{ Got uint64 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("policy has format version %d, this whittle reads version %d", e.Got, FormatVersion)
}

// Hint says which side to renew.
func (e *VersionError) Hint() string {
	if e.Got > FormatVersion {
		return "the file was written by a newer whittle: install that one, or record the workload again with this one"
	}
	return "no whittle wrote this version: record the workload again"
}

// SyntaxError is input that is not a policy, and where it stops being one.
type SyntaxError struct {
	At     string // "abis.x86_64.phases.run"; "" at the top
	Offset int64  // bytes read when it was noticed
	Err    error
	hint   string
}

func (e *SyntaxError) Error() string {
	at := ""
	if e.At != "" {
		at = e.At + ": "
	}
	return fmt.Sprintf("read policy: %s%v (near byte %d)", at, e.Err, e.Offset)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

// Hint is what to do about it, or "".
func (e *SyntaxError) Hint() string { return e.hint }

// UnknownCallError is a name that the ABI's table does not have.
type UnknownCallError struct {
	ABI  syscalls.ABI
	Name string // printable
}

func (e *UnknownCallError) Error() string {
	return fmt.Sprintf("unknown system call %q of %v", e.Name, e.ABI)
}

// Hint is the name that was probably meant.
func (e *UnknownCallError) Hint() string {
	for _, abi := range syscalls.ABIs {
		if _, ok := syscalls.Number(abi, e.Name); ok {
			return fmt.Sprintf("%s is a call of %v, not of %v", e.Name, abi, e.ABI)
		}
	}
	if near := nearest(e.ABI, e.Name); near != "" {
		return fmt.Sprintf("did you mean %q? A call without a name is written \"#\" and its number, for instance \"#600\"", near)
	}
	return "a call without a name is written \"#\" and its number, for instance \"#600\""
}

func unknownCall(abi syscalls.ABI, name string) error {
	return &UnknownCallError{abi, workload.Printable(name, 40)}
}

// nearest is the name with the fewest edits, if they are at most 2, or "".
func nearest(abi syscalls.ABI, name string) string {
	best, bestEdits := "", 3
	for _, known := range syscalls.Known(abi).Names(abi) {
		if n := edits(name, known); n < bestEdits {
			best, bestEdits = known, n
		}
	}
	return best
}

// edits is the Levenshtein distance of two short strings.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
