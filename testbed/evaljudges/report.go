// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/whittle-sec/whittle/internal/judge"
)

// verdicts of cases, in words, each call once.
func verdicts(cases []judge.Case) (out []string) {
	seen := map[string]bool{}
	for _, c := range cases {
		s := fmt.Sprintf("%s %s", c.Question.Call, c.Decision.Verdict)
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func writeReport(name string, rs *results) error {
	if name == "" {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# The panel of judges, evaluated\n")
	return os.WriteFile(name, []byte(b.String()), 0o644)
}
