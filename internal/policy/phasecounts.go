// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
)

// PhaseCounts are counts by phase. There is one for each call of each container that is learned from: a map would take
// several times the room of everything else that is known of the call.
type PhaseCounts [len(phaseNames)]uint64

// MarshalJSON writes an object of the phases that were counted.
func (c PhaseCounts) MarshalJSON() ([]byte, error) {
	counted := map[Phase]uint64{}
	for _, p := range Phases {
		if c[p] > 0 {
			counted[p] = c[p]
		}
	}
	return json.Marshal(counted)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *PhaseCounts) UnmarshalJSON(text []byte) error {
	var counted map[Phase]uint64
	if err := json.Unmarshal(text, &counted); err != nil {
		return fmt.Errorf("read counts by phase: %w", err)
	}
	*c = PhaseCounts{}
	for p, n := range counted {
		c[p] = n
	}
	return nil
}

// plus other counts.
func (c PhaseCounts) plus(d PhaseCounts) PhaseCounts {
	for p := range c {
		c[p] = addCounts(c[p], d[p])
	}
	return c
}
