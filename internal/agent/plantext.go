// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/ward"
)

// openAndHeld counts the calls of a phase that the kernel lets through at once, and those that are allowed when asked for.
func openAndHeld(o *ward.Orders, phase policy.Phase) (open, held int) {
	for _, e := range o.Plan.Entries() {
		switch {
		case e.Place == plan.Open || e.Bulk && phase == policy.Boot:
			open++
		case e.Place == plan.Held && inPhase(o.Policy, e, phase):
			held++
		}
	}
	return open, held
}

func inPhase(p policy.Policy, e plan.Entry, phase policy.Phase) bool {
	calls := p.ABIs[e.Call.ABI]
	return calls != nil && calls.Phases[phase].Has(e.Call.Nr)
}

func planText(o *ward.Orders) string {
	open, held := openAndHeld(o, policy.Run)
	return fmt.Sprintf("%d calls open, %d held and allowed while running", open, held)
}
