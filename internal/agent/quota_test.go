// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

// A container that fails and is started again without end does not push everybody else's events out of the journal.
func TestOneWorkloadDoesNotFillTheJournal(t *testing.T) {
	now := time.Unix(1000, 0)
	var q quota
	count := func(events []api.Event) (kinds map[string]int, said string) {
		kinds = map[string]int{}
		for _, e := range events {
			kinds[e.Workload+" "+e.Kind]++
			if e.Kind == kindProblem {
				said += e.Text
			}
		}
		return kinds, said
	}
	var events []api.Event
	for range 2 * maxToldOf {
		events = append(events, api.Event{Kind: kindJudged, Workload: "hostile"}, api.Event{Kind: kindStart, Workload: "hostile"})
	}
	got, said := count(q.within(events, now))
	if got["hostile "+kindJudged] != maxToldOf || got["hostile "+kindStart] != 2*maxToldOf || !strings.Contains(said, "takes no more") {
		t.Errorf("%v: %s", got, said)
	}
	got, said = count(q.within([]api.Event{{Kind: kindRefused, Workload: "hostile"}, {Kind: kindRefused, Workload: "other"}, {Kind: kindRefused}}, now))
	if len(got) != 2 || got["other "+kindRefused] != 1 || got[" "+kindRefused] != 1 || said != "" {
		t.Errorf("%v: %s", got, said)
	}
	now = now.Add(toldWithin)
	got, said = count(q.within([]api.Event{{Kind: kindRefused, Workload: "hostile"}}, now))
	if got["hostile "+kindRefused] != 1 || !strings.Contains(said, "5001 events") {
		t.Errorf("an hour later: %v: %s", got, said)
	}
	if q.within(nil, now.Add(toldWithin)); len(q.of) != 0 {
		t.Errorf("remembered: %v", q.of)
	}
}
