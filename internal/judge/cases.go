// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/whittle-sec/whittle/internal/workload"
)

// Limits of a file of cases: it may come from anywhere.
const (
	MaxCases     = 100_000
	MaxCasesSize = 64 << 20 // bytes
	maxText      = 1024     // characters of one text
	maxList      = 64       // elements of one list
)

// ErrTooMany is returned, wrapped, for more than MaxCases cases or MaxCasesSize bytes.
var ErrTooMany = errors.New("too many cases")

// ReadCases reads recorded cases: JSON values one after the other, or in arrays, each a case, or an event of the journal
// that holds one as its "data" (`whittle event list --json`). Events of other kinds are passed over. What the cases say
// is made printable.
func ReadCases(r io.Reader) (cases []Case, err error) {
	limited := &io.LimitedReader{R: r, N: MaxCasesSize + 1}
	dec := json.NewDecoder(limited)
	for err == nil {
		var raw json.RawMessage
		if err = dec.Decode(&raw); err == nil {
			cases, err = appendCases(cases, raw)
		}
	}
	switch {
	case limited.N <= 0:
		err = fmt.Errorf("%w: more than %d bytes", ErrTooMany, MaxCasesSize)
	case errors.Is(err, io.EOF):
		return cases, nil
	}
	return nil, fmt.Errorf("reading cases: after %d: %w", len(cases), err)
}

// appendCases of one JSON value.
func appendCases(cases []Case, raw json.RawMessage) ([]Case, error) {
	values := []json.RawMessage{raw}
	if raw[0] == '[' { // a decoder gives values without the space around them
		if err := json.Unmarshal(raw, &values); err != nil {
			return cases, err
		}
	}
	for _, value := range values {
		c, ok, err := caseOf(value)
		switch {
		case err != nil:
			return cases, err
		case !ok:
			continue
		case len(cases) >= MaxCases:
			return cases, fmt.Errorf("%w: more than %d", ErrTooMany, MaxCases)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// caseOf a JSON object. ok is false for an event that holds no case.
func caseOf(raw []byte) (c Case, ok bool, err error) {
	var outer struct {
		Kind     string          `json:"kind"`
		Question json.RawMessage `json:"question"`
		Data     json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(raw, &outer); err != nil {
		return c, false, err
	}
	if outer.Question == nil {
		if outer.Kind != "" && outer.Kind != KindJudged {
			return c, false, nil
		}
		if raw = outer.Data; raw == nil {
			return c, false, errors.New("an object is neither a case nor an event with one")
		}
	}
	var wire struct {
		Case
		Question *Question `json:"question"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return c, false, err
	}
	if wire.Question == nil {
		return c, false, errors.New("a case has no question")
	}
	c = wire.Case
	c.Question = *wire.Question
	clean(&c)
	return c, true, nil
}

// KindJudged is the kind of the journal's events that hold a case.
const KindJudged = "judged"

// clean makes a case that came from anywhere safe to show and to keep.
func clean(c *Case) {
	for _, s := range []*string{&c.Workload, &c.Question.Role, &c.Question.Refusal, &c.Evidence.Origin.Path,
		&c.Evidence.Origin.BuildID, &c.Evidence.Origin.Why, &c.Evidence.Import.Object, &c.Evidence.Import.Symbol,
		&c.Evidence.Import.Why, &c.Decision.Why} {
		*s = printable(*s)
	}
	d := &c.Decision
	d.Votes = d.Votes[:min(len(d.Votes), maxList)]
	for i := range d.Votes {
		v := &d.Votes[i]
		v.Judge, v.Why = printable(v.Judge), printable(v.Why)
		if v.Rule != nil {
			v.Rule.Then = printable(v.Rule.Then)
			v.Rule.If = printables(v.Rule.If)
			v.Rule.Sources = printables(v.Rule.Sources)
		}
	}
	d.Changed = printables(d.Changed)
}

func printables(list []string) []string {
	list = list[:min(len(list), maxList)]
	for i := range list {
		list[i] = printable(list[i])
	}
	return list
}

func printable(s string) string { return workload.Printable(s, maxText) }
