// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"encoding/json"
	"testing"
)

// A workload that was written as JSON and read back is the same one, whatever bytes its command has.
func TestIDSurvivesJSON(t *testing.T) {
	for _, command := range [][]string{{"redis-server"}, {"a", "\xff\xfe\n", "é"}, {"\xed\xa0\x80"}, {}, nil} {
		w := Workload{Image: "i\xff", Command: command}
		data, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		var back Workload
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if back.ID() != w.ID() {
			t.Errorf("%q: ID %s became %s", command, w.ID(), back.ID())
		}
	}
}
