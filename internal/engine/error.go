// SPDX-License-Identifier: Apache-2.0

package engine

import "errors"

// What a caller may want to tell apart. Adapters wrap them with what they were doing and a hint (package hint).
var (
	// ErrUnknownContainer means that the engine has no such container, any more or at all.
	ErrUnknownContainer = errors.New("no such container")
	// ErrUnavailable means that the engine does not answer.
	ErrUnavailable = errors.New("the engine does not answer")
	// ErrIncompatible means that something answers which this adapter does not understand.
	ErrIncompatible = errors.New("not an engine that this version understands")
)
