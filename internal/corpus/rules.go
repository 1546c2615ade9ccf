// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"cmp"
	"math/bits"
	"slices"
	"sync"

	"github.com/whittle-sec/whittle/internal/assoc"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

const (
	maxIf = 3 // calls that a rule goes by: a person reads it
	// minLower is where rules end: one that is likelier wrong than right four times in five speaks for nothing.
	minLower = 0.2
	// minServices that a rule holds in: what one service does is no rule.
	minServices = 2
	// maxRules of one call. They are in the order of Lower, and the first that applies is the best.
	maxRules = 512
	// maxSources that a rule names.
	maxSources = 8
)

// Rules are judge.Associations. Those of a corpus that was read were mined when it was written; else what speaks for a call is
// mined when the first asks for it, which takes some ms.
type Rules struct {
	services []string
	items    items
	views    []*view
	about    []func() []rule // by item
}

var _ judge.Associations = (*Rules)(nil)

// rule says: who does all of if does then, too.
type rule struct {
	ifs        [maxIf]int16 // -1 where there are fewer
	view       int8
	sources    uint64 // services with all of it, a bit each
	support    uint64 // weight
	confidence float64
	lower      float64
	lift       float64
}

func mine(services []Service) *Rules {
	r := &Rules{items: itemsOf(services, assoc.MaxItems)}
	for _, s := range services {
		r.services = append(r.services, s.Name)
	}
	for _, transactions := range []func(Service, items) []transaction{ofBursts, ofStages, ofLives} {
		r.views = append(r.views, newView(services, r.items, transactions))
	}
	for item := range r.items.names {
		r.about = append(r.about, sync.OnceValue(func() []rule { return r.mineFor(item) }))
	}
	return r
}

// mineFor the rules of one consequent, the best first, without those that another is better than wherever they apply.
func (r *Rules) mineFor(then int) []rule {
	var all []rule
	for number, v := range r.views {
		// A view with too many frequent sets has no rules: then nothing speaks for the call.
		if found, err := v.rules(then, int8(number)); err == nil {
			all = append(all, found...)
		}
	}
	slices.SortFunc(all, rule.compare)
	var kept []rule
	for _, one := range all {
		if !slices.ContainsFunc(kept, func(k rule) bool { return k.within(one) }) {
			if kept = append(kept, one); len(kept) == maxRules {
				break
			}
		}
	}
	return kept
}

// compare puts the better rule first, and the shorter of two that are as good.
func (a rule) compare(b rule) int {
	return cmp.Or(cmp.Compare(b.lower, a.lower), cmp.Compare(a.length(), b.length()),
		cmp.Compare(bits.OnesCount64(b.sources), bits.OnesCount64(a.sources)), cmp.Compare(a.view, b.view), slices.Compare(a.ifs[:], b.ifs[:]))
}

func (a rule) length() (n int) {
	for _, item := range a.ifs {
		if item >= 0 {
			n++
		}
	}
	return n
}

// within reports whether b applies only where a does.
func (a rule) within(b rule) bool {
	for _, item := range a.ifs {
		if item >= 0 && !slices.Contains(b.ifs[:], item) {
			return false
		}
	}
	return true
}

// Best rule for a call: the highest lower bound among those whose If is within what was done, for the call or one that can do
// what it does.
func (r *Rules) Best(call syscalls.Call, did syscalls.Set) (judge.Rule, bool) {
	var done assoc.Bits
	for nr := range did.All() {
		if item := r.items.of(syscalls.Call{ABI: call.ABI, Nr: nr}); item >= 0 {
			done.Add(item)
		}
	}
	var best *rule
	then := call
	seen := -1
	for nr := range syscalls.Equivalents(call).All() {
		one := syscalls.Call{ABI: call.ABI, Nr: nr}
		item := r.items.of(one)
		if item < 0 || item == seen {
			continue
		}
		seen = item
		if found := applies(r.about[item](), &done); found != nil && (best == nil || found.lower > best.lower) {
			best = found
			if item != r.items.of(call) {
				then = one
			} else {
				then = call
			}
		}
	}
	if best == nil {
		return judge.Rule{}, false
	}
	return r.tell(best, then, did), true
}

// applies is the first of the rules that does.
func applies(rules []rule, done *assoc.Bits) *rule {
next:
	for i := range rules {
		for _, item := range rules[i].ifs {
			if item >= 0 && !done.Has(int(item)) {
				continue next
			}
		}
		return &rules[i]
	}
	return nil
}

// tell a rule in names: of the calls that were made, not of their classes.
func (r *Rules) tell(found *rule, then syscalls.Call, did syscalls.Set) judge.Rule {
	v := r.views[found.view]
	out := judge.Rule{
		Then: then.String(), Support: float64(found.support) / float64(max(v.total, 1)), Confidence: found.confidence,
		Lower: found.lower, Lift: found.lift, Of: uint64(v.rows),
	}
	for nr := range did.All() {
		call := syscalls.Call{ABI: then.ABI, Nr: nr}
		if item := r.items.of(call); item >= 0 && slices.Contains(found.ifs[:], int16(item)) {
			out.If = append(out.If, call.String())
		}
	}
	slices.Sort(out.If)
	for i, name := range r.services {
		if found.sources>>i&1 != 0 && len(out.Sources) < maxSources {
			out.Sources = append(out.Sources, name)
		}
	}
	return out
}
