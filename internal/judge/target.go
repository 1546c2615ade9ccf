// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Target is whom a signal goes to, as seen from who sends it. The number is in a register, and whose child a process is, is the
// kernel's to say. A master signals the workers that it forked; a worker that signals its master, or its siblings, is rare,
// and what an intruder in it would do.
type Target uint8

const (
	NoTarget   Target = iota // not asked, not told, or any other process
	Gone                     // nobody has the number: a master signals the worker that has just ended
	Descendant               // a process that the sender, or a descendant of its, forked; or a group that one leads
	Itself
)

var targetWords = []string{"", "gone", "descendant", "itself"}

func (t Target) String() string { return word(targetWords, t) }

// MarshalText is String; NoTarget is "".
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is the inverse of MarshalText. What is not known is NoTarget, which speaks for nothing.
func (t *Target) UnmarshalText(text []byte) error {
	*t = NoTarget
	for i, name := range targetWords {
		if name == string(text) {
			*t = Target(i)
		}
	}
	return nil
}

// OfTarget reports whether a call's first argument is the process that it signals. That of pidfd_send_signal is a
// descriptor, behind which another thread can put another process.
func OfTarget(call syscalls.Call) bool {
	return plan.Critical(call) == signals && call.String() != "pidfd_send_signal"
}

// signalling is what a call does that signals.
func (h *hearing) signalling() (Level, string) {
	if OfTarget(h.q.Call) {
		switch h.e.Target {
		case Itself:
			return Ordinary, "it signals its own process"
		case Descendant:
			return Sensitive, "it signals a process that it started"
		case Gone:
			return Sensitive, "it signals a process that is not there"
		}
	}
	return Grave, "it signals other processes than its own children"
}
