// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"slices"
	"sync"

	"github.com/whittle-sec/whittle/internal/cve"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// memory keeps what a panel worked out, because a container may ask for the same again and again. It is bounded; past
// that it is worked out each time.
type memory struct {
	abis        []syscalls.ABI
	allowed     cve.Allowed
	neutralised []cve.CVE
	alike       [][]int // of neutralised: those with the same gates, of which one is asked for all

	mu    sync.RWMutex
	opens map[opening][]string
	rules map[did]found
}

const maxMemory = 4096

// opening is a call, and which of argNames its arguments are.
type opening struct {
	call  syscalls.Call
	shown uint16
}

func newMemory(p policy.Policy) *memory {
	m := &memory{opens: make(map[opening][]string), rules: make(map[did]found), allowed: allowedBy(p)}
	for _, abi := range syscalls.ABIs {
		if p.ABIs[abi] != nil {
			m.abis = append(m.abis, abi)
		}
	}
	m.neutralised, _ = cve.Neutralised(m.abis, m.allowed)
	at := make(map[string]int)
	for i, c := range m.neutralised {
		gates := fmt.Sprint(c.Gates)
		if _, ok := at[gates]; !ok {
			at[gates] = len(m.alike)
			m.alike = append(m.alike, nil)
		}
		m.alike[at[gates]] = append(m.alike[at[gates]], i)
	}
	return m
}

// allowedBy is what the policy allows in any phase, to any role.
func allowedBy(p policy.Policy) cve.Allowed {
	sets := make(map[syscalls.ABI]syscalls.Set)
	for abi := range p.ABIs {
		sets[abi] = policy.AllowedSet(p, policy.Selection{}, abi)
	}
	return func(call syscalls.Call, arg string) bool {
		if call.Nr >= syscalls.MaxNr {
			return false
		}
		set := sets[call.ABI]
		return set.Has(call.Nr) && cve.Passes(p.ABIs[call.ABI].Args[call.Nr], call, arg)
	}
}

// gates are the gated calls by ABI, and the arguments that gates ask for.
var gates = sync.OnceValue(func() (g struct {
	gated map[syscalls.ABI]syscalls.Set
	args  []string
}) {
	g.gated = make(map[syscalls.ABI]syscalls.Set)
	for _, abi := range syscalls.ABIs {
		g.gated[abi] = cve.Gated(abi)
	}
	for _, c := range cve.All() {
		for _, gate := range c.Gates {
			for _, alt := range gate {
				if alt.Arg != "" && !slices.Contains(g.args, alt.Arg) {
					g.args = append(g.args, alt.Arg)
				}
			}
		}
	}
	return g
})

// reopened are the CVEs that the policy neutralises and would not if it also allowed the call with these arguments; and
// whether the call passes any gate at all. See cve.Reopened, which asks for all arguments.
func (m *memory) reopened(call syscalls.Call, args [6]uint64) (ids []string, gated bool) {
	g := gates()
	if set := g.gated[call.ABI]; !set.Has(call.Nr) {
		return nil, false
	}
	key := opening{call: call}
	for i, arg := range g.args {
		if shows(call, arg, args) {
			key.shown |= 1 << i
		}
	}
	m.mu.RLock()
	ids, ok := m.opens[key]
	m.mu.RUnlock()
	if ok {
		return ids, true
	}
	with := func(c syscalls.Call, arg string) bool {
		if c == call && (arg == "" || key.shown>>slices.Index(g.args, arg)&1 != 0) {
			return true
		}
		return m.allowed(c, arg)
	}
	var open []int
	for _, alike := range m.alike {
		if !m.neutralised[alike[0]].Neutralised(m.abis, with) {
			open = append(open, alike...)
		}
	}
	slices.Sort(open)
	for _, i := range open {
		ids = append(ids, m.neutralised[i].ID)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.opens) < maxMemory {
		m.opens[key] = ids
	}
	return ids, true
}

// shows reports whether the arguments are, or may be, what a gate asks for.
func shows(call syscalls.Call, arg string, args [6]uint64) bool {
	registers, ok := cve.Registers(call, arg)
	if !ok {
		return true
	}
	for _, r := range registers {
		if args[r.Index%6]&r.Mask != r.Value {
			return false
		}
	}
	return true
}

// best rule, as Associations.Best.
func (m *memory) best(from Associations, call syscalls.Call, set syscalls.Set) found {
	key := did{call, set}
	m.mu.RLock()
	f, ok := m.rules[key]
	m.mu.RUnlock()
	if ok {
		return f
	}
	if r, ok := from.Best(call, set); ok {
		f = found{ok: true, rule: &r, points: strength(r), words: r.String()}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rules) < maxMemory {
		m.rules[key] = f
	}
	return f
}
