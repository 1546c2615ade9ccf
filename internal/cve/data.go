// SPDX-License-Identifier: Apache-2.0

package cve

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

//go:embed gates.tsv
var gatesTSV string

// all panics on bad data: gates.tsv is part of the program.
var all = sync.OnceValue(func() []CVE {
	cves, err := parse(gatesTSV)
	if err != nil {
		panic(fmt.Sprintf("gates.tsv: %v", err))
	}
	return cves
})

// All CVEs, oldest first. What the elements refer to is shared: do not change it.
func All() []CVE { return slices.Clone(all()) }

func parse(text string) ([]CVE, error) {
	var cves []CVE
	seen := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		c, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if seen[c.ID] {
			return nil, fmt.Errorf("line %d: %s twice", i+1, c.ID)
		}
		seen[c.ID] = true
		cves = append(cves, c)
	}
	return cves, nil
}

func parseLine(line string) (CVE, error) {
	fields := strings.Split(line, "\t")
	if len(fields) != 4 {
		return CVE{}, fmt.Errorf("%d columns instead of 4", len(fields))
	}
	c := CVE{ID: fields[0], Sources: strings.Split(fields[2], ",")}
	if !strings.HasPrefix(c.ID, "CVE-") {
		return CVE{}, fmt.Errorf("%q is no CVE", c.ID)
	}
	if fields[3] != "-" {
		c.Config = strings.Split(fields[3], ",")
	}
	for group := range strings.SplitSeq(fields[1], " & ") {
		var gate Gate
		for text := range strings.SplitSeq(group, "|") {
			alt, err := parseAlternative(text)
			if err != nil {
				return CVE{}, fmt.Errorf("gate %q: %w", group, err)
			}
			gate = append(gate, alt)
		}
		c.Gates = append(c.Gates, gate)
	}
	return c, nil
}

// parseAlternative reads CALL or CALL(ARG). A call that no ABI has would count as blocked for ever, and an argument that
// no call has would never be looked at, so both are errors.
func parseAlternative(text string) (Alternative, error) {
	call, arg, bracket := strings.Cut(text, "(")
	if bracket {
		var closed bool
		if arg, closed = strings.CutSuffix(arg, ")"); !closed || arg == "" {
			return Alternative{}, errors.New("brackets without an argument")
		}
	}
	alt := Alternative{Call: call, Arg: arg}
	if !slices.ContainsFunc(syscalls.ABIs[:], func(a syscalls.ABI) bool { return !syscalls.EquivalentsOf(a, call).Empty() }) {
		return Alternative{}, fmt.Errorf("no ABI has a call %q", call)
	}
	if arg != "" && !takes(call, arg) {
		return Alternative{}, fmt.Errorf("%s has no argument %q", call, arg)
	}
	return alt, nil
}
