// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// vetoed tells whether a call of this machine is one of those that never pass.
func vetoed(name string) bool {
	abi, ok := syscalls.Native(runtime.GOARCH)
	if !ok {
		return false
	}
	nr, ok := syscalls.Number(abi, name)
	return ok && judge.Never(syscalls.Call{ABI: abi, Nr: nr}) != ""
}
