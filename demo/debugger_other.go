// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package main

import "errors"

// callIn is written for x86-64 only.
func callIn(int, uint32, [6]uint64, string) (int64, error) {
	return 0, errors.New("the demo has no debugger for this architecture: it takes over processes on x86-64 only")
}
