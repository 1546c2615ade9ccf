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
	found, all := listenersOf(c.PID, processesOf(r))
	return len(found) > 0 || !all
}

// listenersOf are those processes that have a listening TCP socket of the network that init is in. Not all: there was too much to
// look at.
func listenersOf(init int, pids []int) (found map[int]bool, all bool) {
	listening := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(init) + "/net/" + table)
		if err != nil {
			continue // no such protocol, or no such process
		}
		listeningIn(f, listening)
		f.Close()
	}
	found = map[int]bool{}
	if len(listening) == 0 {
		return found, true
	}
	seen := 0
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if seen++; seen > maxOwners {
				return found, false
			}
			if target, err := os.Readlink(dir + fd.Name()); err == nil && listening[target] {
				found[pid] = true
				break
			}
		}
	}
	return found, true
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
