// SPDX-License-Identifier: Apache-2.0

// Package hint attaches to an error what a person can do about it. It prints nothing: only main does.
package hint

import "errors"

type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }
func (h hinted) Hint() string  { return h.hint }

// Add the hint to an error: one sentence, with the command to type where there is one.
func Add(err error, hint string) error {
	if err == nil {
		return nil
	}
	return hinted{err, hint}
}

// Of is the outermost hint of an error, or "". Any error with a method Hint() string has one.
func Of(err error) string {
	var h interface {
		error
		Hint() string
	}
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}
