// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/whittle-sec/whittle/internal/api"
)

// statusPage is the agent's status, with what there is for a person to decide.
type statusPage struct {
	api.Status
	Waiting     int            `json:"waiting,omitempty"`     // calls that wait for a person
	Quarantined map[string]int `json:"quarantined,omitempty"` // calls, by workload ID, of the containers that are shown
}

// pageOf a status. An agent of another version may know nothing of this, and a workload have no policy yet.
func pageOf(ctx context.Context, client *api.Client, s api.Status) (statusPage, error) {
	page := statusPage{Status: s, Quarantined: map[string]int{}}
	waiting, err := client.Waiting(ctx)
	if err != nil && !errors.Is(err, api.ErrNotFound) {
		return page, err
	}
	page.Waiting = len(waiting)
	shown := map[string]bool{}
	for _, c := range s.Containers {
		shown[c.WorkloadID] = true
	}
	if len(shown) == 0 {
		return page, nil
	}
	all, err := client.Workloads(ctx)
	for _, w := range all {
		if shown[w.ID] && w.Quarantined > 0 {
			page.Quarantined[w.ID] = w.Quarantined
		}
	}
	return page, err
}

// printDecisions that are a person's: a line for what waits, and one for each workload with calls in quarantine.
func (a *app) printDecisions(w io.Writer, s statusPage) {
	if s.Waiting > 0 {
		verb := "wait"
		if s.Waiting == 1 {
			verb = "waits"
		}
		fmt.Fprintf(w, "waiting: %s %s for a person: %s\n", count(s.Waiting, "call"), verb, a.command("judge list"))
	}
	told := map[string]bool{}
	for _, c := range s.Containers {
		n := s.Quarantined[c.WorkloadID]
		if n == 0 || told[c.WorkloadID] {
			continue
		}
		told[c.WorkloadID] = true
		fmt.Fprintf(w, "quarantine: %s of %s: %s\n", count(n, "call"), oneLine(c.WorkloadName), a.command("policy show "+workloadWord(c)))
	}
}
