// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"os"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/workload"
)

func laneName(l observe.Lane) string {
	switch l {
	case observe.LaneService:
		return "service"
	case observe.LaneExec:
		return "exec"
	case observe.LaneRuntime:
		return "runtime"
	}
	return "unknown"
}

func commOf(tid int) string {
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/comm")
	if err != nil {
		return "?"
	}
	return workload.Printable(strings.TrimSuffix(string(comm), "\n"), 16)
}

// descends tells whether a process is the container's first one or comes from it; what an exec brought does not.
func descends(pid, init int) bool {
	for range 64 {
		if pid == init {
			return true
		}
		if pid <= 1 {
			return false
		}
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return false
		}
		// The name, in brackets, may hold anything; the fourth field is the parent (proc_pid_stat(5)).
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
}
