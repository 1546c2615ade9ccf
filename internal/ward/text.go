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
