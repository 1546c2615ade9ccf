// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/testbed/intruder"
)

// makeCalls in a process, as code that an intruder has brought into it would.
func makeCalls(t *testing.T, pid int, names ...string) (results map[string]int) {
	t.Helper()
	var calls []intruder.Call
	for _, name := range names {
		call, err := intruder.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, call)
	}
	made, err := intruder.Make(pid, intruder.Waiting, calls...)
	if err != nil {
		t.Fatal(err)
	}
	results = map[string]int{}
	for n, r := range made {
		results[names[n]] = int(r.Value)
	}
	return results
}

// refusedIn a process: every one of the calls, with EPERM.
func refusedIn(t *testing.T, pid int, names ...string) {
	t.Helper()
	for name, got := range makeCalls(t, pid, names...) {
		if got != -int(unix.EPERM) {
			t.Errorf("%s in process %d (%s) returned %d, want %d", name, pid, commandOf(pid), got, -int(unix.EPERM))
		}
	}
}

func commandOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // for a message
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}

// childrenOf a process.
func childrenOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.FieldsSeq(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, child)
	}
	slices.Sort(pids)
	return pids
}
