// SPDX-License-Identifier: Apache-2.0

package engine

import "errors"

// What a caller may want to tell apart. They are wrapped in an *Error.
var (
	// ErrUnknownContainer means that the engine has no such container, any more or at all.
	ErrUnknownContainer = errors.New("no such container")
	// ErrUnavailable means that the engine does not answer.
	ErrUnavailable = errors.New("the engine does not answer")
	// ErrIncompatible means that something answers which this adapter does not understand.
	ErrIncompatible = errors.New("not an engine that this version understands")
)

// Error is what an adapter returns: what it was doing, why that failed, and what a person can type about it.
type Error struct {
	Doing string
	Err   error
	hint  string
}

// Fail makes an Error. The hint may be empty.
func Fail(doing string, err error, hint string) *Error {
	return &Error{Doing: doing, Err: err, hint: hint}
}

func (e *Error) Error() string { return e.Doing + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Hint is the next thing to try, or "".
func (e *Error) Hint() string { return e.hint }
