// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"

	"github.com/whittle-sec/whittle/internal/observe"
)

// SpeakerCut is the rule of SPEAKER (Lei et al., "SPEAKER: Split-Phase Execution of Application Containers", DIMVA 2017) as
// we read it, to compare with: the sets of calls made in each second are added up, and booting ends where the sum has
// reached a fixpoint, that is where it stays flat. It uses neither readiness nor signals except the stop signal, which its
// published artifact takes as the beginning of a third phase. Under load it cuts late, because every new kind of
// request starts the flat time again; idle it cuts before the service ever served.
func SpeakerCut(t observe.Trace, cfg Config) Cut { return speakerCut(t, newSeries(t), cfg) }

func speakerCut(t observe.Trace, s *series, cfg Config) Cut {
	end := len(t.Epochs)
	if stop, ok := t.Mark(observe.CauseStop); ok {
		end = stop
	}
	cut := Cut{BootEnd: end, Method: "SPEAKER", Reason: "no fixpoint yet"}
	for e := range end {
		if s.fresh[e] == 0 {
			continue
		}
		until, known := s.after(e+1, cfg.Flat.Seconds(), end)
		if known && s.freshIn(e+1, until) == 0 {
			cut.BootEnd, cut.Confirmed = e+1, true
			cut.Ready = t.Epochs[e+1].Start
			cut.Reason = fmt.Sprintf("no new call for %s", show(cfg.Flat))
			break
		}
	}
	cut.divide(len(t.Epochs), end)
	return cut
}
