// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Change of one file.
type Change struct {
	Path          string
	before, after state
}

// Verb is create, change or remove.
func (c Change) Verb() string {
	switch {
	case !c.before.exists():
		return "create"
	case !c.after.exists():
		return "remove"
	}
	return "change"
}

// Lines that go ("-…") and come ("+…"), between those that stay at the beginning and at the end. What a removed file had in it
// is not shown.
func (c Change) Lines() []string {
	if !c.after.exists() {
		return []string{}
	}
	before, after := c.before.lines(), c.after.lines()
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	var out []string
	for _, l := range before {
		out = append(out, "-"+l)
	}
	for _, l := range after {
		out = append(out, "+"+l)
	}
	return out
}

func (s state) lines() []string {
	switch {
	case !s.exists():
		return nil
	case s.link:
		return []string{"-> " + string(s.contents)}
	}
	return strings.Split(strings.TrimSuffix(string(s.contents), "\n"), "\n")
}

// String is the change as a person reads it.
func (c Change) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", c.Verb(), c.Path)
	for _, l := range c.Lines() {
		fmt.Fprintf(&b, "  %s\n", l)
	}
	return b.String()
}

// MarshalJSON shows what String shows.
func (c Change) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Verb  string   `json:"verb"`
		Path  string   `json:"path"`
		Lines []string `json:"lines"`
	}{c.Verb(), c.Path, c.Lines()})
}
