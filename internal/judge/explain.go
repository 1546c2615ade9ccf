// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"strings"
)

// Lines are the decision as a person reads it: the verdict, a line for each judge, and what would have changed it.
func (d Decision) Lines() []string {
	lines := []string{fmt.Sprintf("%v: %s", d.Verdict, d.Why)}
	for _, v := range d.Votes {
		lines = append(lines, fmt.Sprintf("  %-11s  %-7s  %s", v.Judge, v.mark(), v.Why))
	}
	for _, c := range d.Changed {
		lines = append(lines, "  "+c)
	}
	return lines
}

func (v Vote) mark() string {
	if v.Stance == For {
		return fmt.Sprintf("+%d", v.Points)
	}
	if v.Stance == Silent {
		return "-"
	}
	return v.Stance.String()
}

// Explain is the case as a person reads it.
func (c Case) Explain() []string {
	q := c.Question
	who := q.Role
	if who == "" {
		who = "a program that is not known"
	}
	if q.Birth {
		who += ", which was starting,"
	}
	asked := fmt.Sprintf("%s asked for %v(%s), %v lane, %s", who, q.Call, hexadecimal(q.Args), q.Lane, inPhase(q.Phase))
	lines := []string{asked}
	if q.Refusal != "" {
		lines = append(lines, "the policy says: "+q.Refusal)
	}
	return append(lines, c.Decision.Lines()...)
}

func hexadecimal(args [6]uint64) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = fmt.Sprintf("%#x", a)
	}
	return strings.Join(words, ", ")
}
