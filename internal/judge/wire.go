// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// wireQuestion is a Question in JSON: names instead of numbers, which differ between ABIs, and arguments in hexadecimal
// text, as readers that keep numbers as floating point would round them.
type wireQuestion struct {
	ABI       syscalls.ABI `json:"abi"`
	Call      string       `json:"call"`
	Args      [6]string    `json:"args"`
	Lane      string       `json:"lane"`
	Phase     policy.Phase `json:"phase"`
	Role      string       `json:"role,omitempty"`
	Birth     bool         `json:"birth,omitempty"`
	Refusal   string       `json:"refusal,omitempty"`
	Novel     bool         `json:"novel,omitempty"`
	Arguments bool         `json:"arguments,omitempty"`
	Withheld  bool         `json:"withheld,omitempty"`
}

// MarshalJSON writes names, and arguments as text.
func (q Question) MarshalJSON() ([]byte, error) {
	w := wireQuestion{ABI: q.Call.ABI, Call: q.Call.String(), Lane: q.Lane.String(), Phase: q.Phase, Role: q.Role, Birth: q.Birth,
		Refusal: q.Refusal, Novel: q.Novel, Arguments: q.Arguments, Withheld: q.Withheld}
	for i, a := range q.Args {
		w.Args[i] = fmt.Sprintf("%#x", a)
	}
	return json.Marshal(w)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (q *Question) UnmarshalJSON(data []byte) error {
	const doing = "reading a question"
	var w wireQuestion
	if err := json.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	nr, ok := syscalls.Number(w.ABI, w.Call)
	if !ok {
		return fmt.Errorf("%s: %v has no call %.40q", doing, w.ABI, w.Call)
	}
	lane, err := parseLane(w.Lane)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	r := Question{Call: syscalls.Call{ABI: w.ABI, Nr: nr}, Lane: lane, Phase: w.Phase, Role: w.Role, Birth: w.Birth,
		Refusal: w.Refusal, Novel: w.Novel, Arguments: w.Arguments, Withheld: w.Withheld}
	for i, text := range w.Args {
		if text == "" {
			continue
		}
		if r.Args[i], err = strconv.ParseUint(text, 0, 64); err != nil {
			return fmt.Errorf("%s: argument %d: %w", doing, i, err)
		}
	}
	*q = r
	return nil
}

func parseLane(s string) (observe.Lane, error) {
	for lane := observe.LaneNone; lane <= observe.LaneRuntime; lane++ {
		if lane.String() == s {
			return lane, nil
		}
	}
	return 0, fmt.Errorf("no lane is called %.40q", s)
}
