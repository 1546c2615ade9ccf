// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
)

// narrow a container that has booted: calls that its boot makes too often to be asked about each time were open, and are
// refused from now on by a plain filter on top. Only those that no later phase needs: nobody can take that filter off.
func (m *model) narrow(c *tracked) {
	o := c.held.ward.Orders()
	if c.oracleOf != nil || c.held.narrowed || c.held.program != nil || !o.Plan.HasBulk() {
		return
	}
	c.held.narrowed = true
	rules, names := bootOnlyBulk(o)
	if len(names) == 0 {
		return
	}
	view := c.view
	m.agent.start(func() {
		s := site{c: c, view: view, orders: o}
		var err error
		if s.request, err = requestFor(view); err == nil {
			s.request.Skip = true
			if s.request.Program, err = filter.Compile(rules); err == nil {
				_, err = m.agent.attach(context.Background(), s, api.AttachResult{}, "narrow")
			}
		}
		_ = m.agent.ask(context.Background(), func(m *model) error {
			switch {
			case c.gone:
			case err != nil:
				m.event(kindProblem, c, fmt.Sprintf("%s keeps calls that only its boot needs (%s): %v", view.Name, strings.Join(names, ", "), err))
			default:
				m.event(kindSeal, c, fmt.Sprintf("%s: its boot makes these too often to be asked about, and nothing after it needs them: refused from now on: %s",
					view.Name, strings.Join(names, ", ")))
			}
			return nil
		})
	})
}

// bootOnlyBulk is a filter that refuses the bulk calls which no phase after boot needs and allows everything else.
func bootOnlyBulk(o *ward.Orders) (*filter.Rules, []string) {
	rules := &filter.Rules{Tables: map[syscalls.ABI]*filter.Table{}, Foreign: filter.Allow}
	var names []string
	for _, e := range o.Plan.Entries() {
		if rules.Tables[e.Call.ABI] == nil {
			t := &filter.Table{Beyond: filter.Allow}
			for nr := range t.Actions {
				t.Actions[nr] = filter.Allow
			}
			rules.Tables[e.Call.ABI] = t
		}
		if e.Bulk && !inPhase(o.Policy, e, policy.Run) && !inPhase(o.Policy, e, policy.Reload) && !inPhase(o.Policy, e, policy.Stop) {
			rules.Tables[e.Call.ABI].Actions[e.Call.Nr] = filter.Errno(uint16(policy.RefusalErrno(o.Policy, e.Call)))
			names = append(names, e.Call.String())
		}
	}
	return rules, names
}
