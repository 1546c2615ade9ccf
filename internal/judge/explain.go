// SPDX-License-Identifier: Apache-2.0

package judge

// Lines are the decision as a person reads it.
func (d Decision) Lines() []string { return nil }

// Explain is the case as a person reads it.
func (c Case) Explain() []string { return c.Decision.Lines() }
