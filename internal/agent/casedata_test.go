// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// A container names its files as it likes. One row that the journal does not take would keep all later ones out.
func TestCaseOfHostileNamesFitsTheJournal(t *testing.T) {
	nr, _ := syscalls.Number(syscalls.X86_64, "umask")
	for _, name := range []string{"/" + strings.Repeat("a", 4094), "/" + strings.Repeat("<", 4094), "/" + strings.Repeat(`\x01`, 4094)} {
		c := judge.Case{
			Question: judge.Question{Call: syscalls.Call{ABI: syscalls.X86_64, Nr: nr}, Role: name + ":0"},
			Evidence: judge.Evidence{
				Origin: judge.Origin{Class: judge.Foreign, Path: name}, Import: judge.Import{Carrier: judge.Imports, Object: name},
			},
		}
		c.Decision = judge.New(lesson(false, map[policy.Phase][]string{policy.Run: {"read"}}).Policy, nil).Decide(c.Question, c.Evidence)
		votes := slices.Clone(c.Decision.Votes)
		data := caseData(c)
		if len(data) == 0 || len(data) > maxCaseData {
			t.Errorf("%.10s: %d bytes of data", name, len(data))
		}
		var back judge.Case
		if err := json.Unmarshal(data, &back); err != nil || back.Question.Call != c.Question.Call || back.Decision.Verdict != c.Decision.Verdict {
			t.Errorf("%.10s: %+v, %v", name, back, err)
		}
		if !slices.Equal(votes, c.Decision.Votes) {
			t.Errorf("%.10s: the votes were changed", name)
		}
		s, err := store.Open(t.TempDir(), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Stored{s}).Append(t.Context(), []api.Event{{Kind: kindJudged, Data: data}}); err != nil {
			t.Error(err)
		}
		_ = s.Close()
	}
}
