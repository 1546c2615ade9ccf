// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"slices"

	"github.com/whittle-sec/whittle/internal/observe"
)

// changes are what might have been known besides, each as the vote that a judge would have given.
var changes = []struct {
	judge int
	vote  Vote
	words string
}{
	{byOrigin, Vote{}, "if the instruction lay in a file of the image"},
	{byImport, Vote{Stance: For, Points: carried}, "if the program or one of its libraries needed the call"},
	{byImport, Vote{}, "if it were not known that no mapped object needs the call"},
	{byAssociation, Vote{Stance: For, Points: weakRule}, "if a rule of association led to it"},
	{byAssociation, Vote{Stance: For, Points: strongRule}, "if a strong rule of association led to it"},
	{byFleet, Vote{Stance: For, Points: oneReplica}, "if another replica had needed it"},
	{byFleet, Vote{Stance: For, Points: mostReplicas}, "if most of the other replicas had needed it"},
	{byPhase, Vote{Stance: For, Points: begunOutside}, "during a reload or a stop that somebody outside began"},
}

// changed tries what one judge more, or less, would have made of the verdict.
func (p *Panel) changed(h *hearing, d Decision, asked terms) (words []string) {
	if h.t == nil || asked.level >= Forbidden && d.Verdict == Refuse {
		return []string{"if a person allowed it: " + p.command(h.q.Call)}
	}
	seen := [judges]Verdict{}
	for i := range seen {
		seen[i] = d.Verdict
	}
	for _, c := range changes {
		if p.absent[c.judge] || !h.open(c.judge) {
			continue
		}
		if v := with(d, asked, c.judge, c.vote); v > seen[c.judge] {
			seen[c.judge] = v
			words = append(words, c.words+", "+outcome[v])
		}
	}
	if d.Verdict < Once {
		return append(words, "if a person allowed it: "+p.command(h.q.Call))
	}
	for _, v := range d.Votes {
		if v.Stance != For {
			continue
		}
		if less := with(d, asked, slices.Index(Names, v.Judge), Vote{}); less < d.Verdict {
			words = append(words, "without what "+v.Judge+" says, "+outcome[less])
		}
	}
	return words
}

// open reports whether the judge might have said something else of this question with more evidence.
func (h *hearing) open(judge int) bool {
	switch judge {
	case byPhase:
		return !begun(h.q.Phase) && !h.q.Arguments && h.q.Lane != observe.LaneExec && !h.t.service.Has(h.q.Call.Nr)
	case byAssociation:
		return h.known && !h.q.Arguments && !h.placed()
	}
	return true
}

var outcome = map[Verdict]string{
	Refuse: "it would be refused",
	Ask:    "a person would be asked",
	Once:   "it would be let through once",
	Learn:  "it would be learned",
}

// with is the verdict with another vote of one judge.
func with(d Decision, asked terms, judge int, vote Vote) Verdict {
	var other [judges]Vote
	n := copy(other[:], d.Votes)
	for i := range other[:n] {
		if other[i].Judge == Names[judge] {
			vote.Judge = other[i].Judge
			other[i] = vote
		}
	}
	return weigh(other[:n], asked).Verdict
}
