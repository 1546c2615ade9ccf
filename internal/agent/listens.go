// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
)

// maxSockets of a namespace, and maxOwners of a container, that are looked at to see whether it listens.
const (
	maxSockets = 1 << 20 // bytes
	maxOwners  = 4096    // descriptors
)

// listens tells whether a container has a TCP socket that somebody may be connected to. Where it cannot be told it is taken to:
// to move what nobody uses does no harm.
func listens(c engine.Container) bool {
	r, err := requestFor(api.Container{Container: c.Container})
	if err != nil {
		return false // it has no process any more
	}
	listening := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(c.PID) + "/net/" + table)
		if err != nil {
			continue // no such protocol, or no such process
		}
		listeningIn(f, listening)
		f.Close()
	}
	if len(listening) == 0 {
		return false
	}
	seen := 0
	for _, pid := range processesOf(r) {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if seen++; seen > maxOwners {
				return true
			}
			if target, err := os.Readlink(dir + fd.Name()); err == nil && listening[target] {
				return true
			}
		}
	}
	return false
}

// listeningIn a table of /proc/net, as descriptors are shown.
func listeningIn(table io.Reader, found map[string]bool) {
	const state, inode, listen = 3, 9, "0A"
	lines := bufio.NewScanner(io.LimitReader(table, maxSockets))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > inode && fields[state] == listen {
			found["socket:["+fields[inode]+"]"] = true
		}
	}
}
