// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/whittle-sec/whittle/internal/workload"
)

// Limits of a file of cases: it may come from anywhere.
const (
	MaxCases     = 100_000
	MaxCasesSize = 32 << 20 // bytes
	maxText      = 1024     // characters of one text
	maxList      = 64       // elements of one list
)

// ErrTooMany is returned, wrapped, for more than MaxCases cases or MaxCasesSize bytes.
var ErrTooMany = errors.New("too many cases")

// ReadCases reads recorded cases: JSON values one after the other, or in one array, each a case, or an event of the journal
// that holds one as its "data" (`whittle event list --json`). Events of other kinds are passed over. What the cases say
// is made printable.
func ReadCases(r io.Reader) ([]Case, error) { return readCases(r, MaxCasesSize, MaxCases) }

func readCases(r io.Reader, size int64, count int) (cases []Case, err error) {
	const doing = "reading cases"
	limited := &io.LimitedReader{R: r, N: size + 1}
	in := bufio.NewReader(limited)
	array, err := beginsArray(in)
	dec := json.NewDecoder(in)
	if err == nil && array {
		_, err = dec.Token()
	}
	for err == nil && (!array || dec.More()) {
		cases, err = readCase(dec, cases, count)
	}
	if err == nil { // the array's end
		_, err = dec.Token()
	}
	switch {
	case limited.N <= 0:
		err = fmt.Errorf("%w: more than %d bytes", ErrTooMany, size)
	case err == nil || errors.Is(err, io.EOF) && !array:
		return cases, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("%s: after %d: %w", doing, len(cases), err)
}

func beginsArray(in *bufio.Reader) (bool, error) {
	for {
		c, err := in.ReadByte()
		if err != nil {
			return false, err
		}
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c == '[', in.UnreadByte()
		}
	}
}

func readCase(dec *json.Decoder, cases []Case, count int) ([]Case, error) {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return cases, err
	}
	c, ok, err := caseOf(raw)
	switch {
	case err != nil || !ok:
		return cases, err
	case len(cases) >= count:
		return cases, fmt.Errorf("%w: more than %d", ErrTooMany, count)
	}
	return append(cases, c), nil
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
func clean(c *Case) { *c = c.Short(maxText) }

// Short is the case with no text longer than limit, and printable. Containers name files: a case holds their names several
// times over, and a journal bounds its rows. It shares nothing with c that it changes.
func (c Case) Short(limit int) Case {
	cut := func(s string) string { return workload.Printable(s, limit) }
	cutAll := func(list []string) []string {
		list = slices.Clone(list[:min(len(list), maxList)])
		for i := range list {
			list[i] = cut(list[i])
		}
		return list
	}
	for _, s := range []*string{&c.Workload, &c.Question.Role, &c.Question.Refusal, &c.Evidence.Origin.Path,
		&c.Evidence.Origin.BuildID, &c.Evidence.Origin.Why, &c.Evidence.Import.Object, &c.Evidence.Import.Symbol,
		&c.Evidence.Import.Why, &c.Decision.Why} {
		*s = cut(*s)
	}
	d := &c.Decision
	d.Votes = slices.Clone(d.Votes[:min(len(d.Votes), maxList)])
	for i := range d.Votes {
		v := &d.Votes[i]
		v.Judge, v.Why = cut(v.Judge), cut(v.Why)
		if v.Rule != nil {
			r := *v.Rule
			r.Then, r.If, r.Sources = cut(r.Then), cutAll(r.If), cutAll(r.Sources)
			v.Rule = &r
		}
	}
	d.Changed = cutAll(d.Changed)
	return c
}
