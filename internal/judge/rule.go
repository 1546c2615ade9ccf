// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"strconv"
	"strings"
)

// Level of risk: what a call may do to whom it is given wrongly. Each level asks for a point more than the one before.
type Level uint8

const (
	Harmless  Level = iota // behind no known CVE's gate, in no critical class
	Ordinary               // behind a gate that is open for this policy anyway, or critical with arguments that are not
	Sensitive              // re-opens a CVE; starts processes, signals them, or makes ways to the network where there are some
	Grave                  // re-opens several CVEs, or changes rights, views or code
	Forbidden              // never passes
)

// Points that a call needs, and the points beyond those with which it is learned and not only let through: what is
// learned is not judged again. One piece of evidence is enough for a harmless call. A sensitive one needs two kinds of it,
// as no judge but "equivalent", which shows that nothing is gained, gives three points.
var (
	need   = [...]int{Harmless: 1, Ordinary: 2, Sensitive: 3, Grave: 4, Forbidden: 1 << 20}
	margin = [...]int{Harmless: 0, Ordinary: 0, Sensitive: 1, Grave: 1, Forbidden: 0}
)

// Points that the judges give.
const (
	carried       = 2 // an object needs the call
	strongRule    = 2 // nearly all who do the same do this
	weakRule      = 1 // many more of them do than of the rest
	repeats       = 2 // the role makes the call in a phase that a reload or a stop repeats
	elsewhere     = 1 // the role makes it in another phase, or another role does in this one
	begunOutside  = 1 // a reload or a stop, where services do what they do at no other time
	sameElsewhere = 1 // the role does the same under another number in another phase
	sameHere      = 3 // the role may do the same here under another number
	oneReplica    = 1
	mostReplicas  = 2
)

// terms are what a case asks for.
type terms struct {
	level Level
	once  string // why it is not learned, or ""
}

// decide by the votes alone:
//
//   - A veto refuses.
//   - needed is what the level asks for, and one more for each vote against; given is the sum of the points.
//   - Fewer points than needed: a person is asked. As many: allowed once. The level's margin more, and no reason to look
//     again each time: learned.
//
// So a vote that moves from Veto to Against, Silent, For and to more points never makes the verdict stricter, and a higher
// level never makes it laxer.
func decide(votes []Vote, asked terms) Decision {
	d := weigh(votes, asked)
	var gave []string
	for _, v := range votes {
		switch v.Stance {
		case Veto:
			d.Why = v.Why
			return d
		case For:
			gave = append(gave, v.Judge)
		}
	}
	points := strconv.Itoa(d.Given) + " of " + strconv.Itoa(d.Needed) + " points"
	if len(gave) > 0 {
		points += " (" + strings.Join(gave, ", ") + ")"
	}
	switch {
	case d.Verdict == Refuse:
		d.Why = "it never passes"
	case d.Verdict == Ask:
		d.Why = points + ", which is not enough"
	case d.Verdict == Learn:
		d.Why = points
	case asked.once != "":
		d.Why = points + "; " + asked.once
	default:
		d.Why = fmt.Sprintf("%s; to be learned it needs %d", points, d.Needed+margin[asked.level])
	}
	return d
}

// weigh is decide without words.
func weigh(votes []Vote, asked terms) Decision {
	d := Decision{Votes: votes, Needed: need[asked.level]}
	veto := asked.level >= Forbidden
	for _, v := range votes {
		switch v.Stance {
		case For:
			d.Given += max(v.Points, 0)
		case Against:
			d.Needed++
		case Veto:
			veto = true
		}
	}
	switch {
	case veto:
		d.Verdict = Refuse
	case d.Given < d.Needed:
		d.Verdict = Ask
	case asked.once != "" || d.Given < d.Needed+margin[asked.level]:
		d.Verdict = Once
	default:
		d.Verdict = Learn
	}
	return d
}
