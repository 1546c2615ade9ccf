// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Origins is the kind of memory that each of the service lane's calls came from when a role first made it, of several roles
// the worst, by its name ("anonymous", "heap" …; see observe.Origin). Calls of which it is not known are not there.
func Origins(t observe.Trace) map[syscalls.Call]string {
	worst := make(map[syscalls.Call]observe.Origin)
	for _, cell := range t.Cells {
		if cell.Lane != observe.LaneService {
			continue
		}
		for _, seen := range cell.Calls {
			worst[seen.Call] = max(worst[seen.Call], seen.Origin)
		}
	}
	names := make(map[syscalls.Call]string, len(worst))
	for call, origin := range worst {
		if origin != observe.OriginUnknown {
			names[call] = origin.String()
		}
	}
	return names
}
