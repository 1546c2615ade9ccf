// SPDX-License-Identifier: Apache-2.0

package store

import (
	"testing"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// A list that is asked for again reads only the policies that have changed.
func TestFactsAreReadOnce(t *testing.T) {
	s := open(t, stateDir(t))
	p := testPolicy("redis", 1, 2)
	put(t, s, p, "learned")
	facts := func() Facts {
		t.Helper()
		entries, err := s.Policies(ctx)
		if err != nil || len(entries) != 1 {
			t.Fatalf("Policies = %+v, %v", entries, err)
		}
		f, err := s.Facts(ctx, entries[0])
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := facts(); f.ByPhase[policy.Run] != 2 || f.Runs != 1 || f.Quarantined != 0 {
		t.Errorf("Facts = %+v", f)
	}
	if _, err := s.write.ExecContext(ctx, `UPDATE policies SET policy = 'spoilt'`); err != nil {
		t.Fatal(err)
	}
	if f := facts(); f.ByPhase[policy.Run] != 2 {
		t.Errorf("Facts = %+v the second time", f)
	}
	if _, err := s.write.ExecContext(ctx, `DELETE FROM policies`); err != nil {
		t.Fatal(err)
	}
	// At the same time, and as the same revision.
	p.ABIs[syscalls.X86_64].Quarantined = map[uint32]string{7: "it never passes by inference"}
	put(t, s, p, "learned")
	if f := facts(); f.Quarantined != 1 {
		t.Errorf("Facts = %+v after a change", f)
	}
}
