// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"testing"
)

func TestPhaseCountsInJSON(t *testing.T) {
	for _, tt := range []struct {
		e    Evidence
		want string
	}{
		{Evidence{Source: "observed"}, `{"source":"observed"}`},
		{Evidence{Source: "observed", Phases: PhaseCounts{Run: 3}}, `{"source":"observed","phases":{"run":3}}`},
		{Evidence{Source: "observed", Phases: PhaseCounts{Boot: 1, Stop: 2}}, `{"source":"observed","phases":{"boot":1,"stop":2}}`},
	} {
		text, err := json.Marshal(tt.e)
		if err != nil || string(text) != tt.want {
			t.Errorf("Marshal = %s, %v; want %s", text, err, tt.want)
		}
		back := Evidence{Phases: PhaseCounts{Reload: 7}}
		if err := json.Unmarshal([]byte(tt.want), &back); err != nil || tt.e.Phases != (PhaseCounts{}) && back.Phases != tt.e.Phases {
			t.Errorf("Unmarshal(%s) = %v, %v", tt.want, back.Phases, err)
		}
	}
	var c PhaseCounts
	if err := json.Unmarshal([]byte(`{"lunch":1}`), &c); err == nil {
		t.Errorf("a phase that there is not: %v", c)
	}
}
