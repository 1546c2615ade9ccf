// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

// What one workload's containers may write into the journal by asking for what is refused. They decide how much that is: one
// that is started again and again begins anew each time. So in an hour they push out a tenth of what the journal keeps.
const (
	maxToldOf  = 5000
	toldWithin = time.Hour
)

// provoked are the kinds of events that containers cause as often as they like.
var provoked = map[string]bool{kindRefused: true, kindShadow: true, kindJudged: true, kindAsked: true}

// quota of each workload's events. The zero quota has seen none.
type quota struct {
	of map[string]*told // by workload ID
}

type told struct {
	since   time.Time
	count   int
	leftOut int
}

// within is events without those that are too many, and with what has to be said of them.
func (q *quota) within(events []api.Event, now time.Time) (kept []api.Event) {
	for id, t := range q.of {
		if now.Sub(t.since) < toldWithin {
			continue
		}
		if t.leftOut > 0 {
			kept = append(kept, api.Event{Time: now, Kind: kindProblem, Workload: id, Text: fmt.Sprintf(
				"%d events of what its containers were refused or judged for are not in the journal: it takes %d in %s; whittle status has their counts",
				t.leftOut, maxToldOf, toldWithin)})
		}
		delete(q.of, id)
	}
	for _, e := range events {
		if provoked[e.Kind] && e.Workload != "" && !q.room(e.Workload, now) {
			continue
		}
		kept = append(kept, e)
		if t := q.of[e.Workload]; t != nil && provoked[e.Kind] && t.count == maxToldOf {
			kept = append(kept, api.Event{Time: now, Kind: kindProblem, Workload: e.Workload, Text: fmt.Sprintf(
				"its containers are refused or judged so often that the journal takes no more of that before %s", t.since.Add(toldWithin).Format(time.TimeOnly))})
		}
	}
	return kept
}

// room for one more event of a workload.
func (q *quota) room(workload string, now time.Time) bool {
	t := q.of[workload]
	if t == nil {
		if q.of == nil {
			q.of = map[string]*told{}
		}
		t = &told{since: now}
		q.of[workload] = t
	}
	if t.count >= maxToldOf {
		t.leftOut++
		return false
	}
	t.count++
	return true
}
