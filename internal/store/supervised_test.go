// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/whittle-sec/whittle/internal/hint"
)

func intend(t *testing.T, s *Store, v Supervised) int64 {
	t.Helper()
	seq, err := s.IntendSupervision(ctx, v)
	if err != nil {
		t.Fatalf("IntendSupervision: %v", err)
	}
	return seq
}

func supervised(t *testing.T, s *Store) []Supervised {
	t.Helper()
	all, err := s.Supervised(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A container that was started under a filter, and got two more: one was not made, one nobody knows about.
func TestSupervisedStack(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	web := Supervised{Engine: "podman", ID: "c1", Name: "web", Workload: "w", Boot: "b", How: "start", Mode: "shadow",
		Revision: 3, Fingerprint: "f1"}
	first := intend(t, s, web)
	if err := s.ConfirmSupervision(ctx, first, 42, math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	if err := s.ConfirmSupervision(ctx, first, 0, 0); err != nil {
		t.Errorf("confirm again: %v", err)
	}
	other := web
	other.How, other.Fingerprint, other.PID, other.Started = "attach", "f2", 42, 7
	dropped := intend(t, s, other)
	if err := s.AbandonSupervision(ctx, dropped); err != nil {
		t.Fatal(err)
	}
	if err := s.ConfirmSupervision(ctx, dropped, 42, 7); !errors.Is(err, ErrNotFound) {
		t.Errorf("confirm what was abandoned: %v, want ErrNotFound", err)
	}
	if err := s.AbandonSupervision(ctx, first); !errors.Is(err, ErrNotFound) {
		t.Errorf("abandon what is done: %v, want ErrNotFound", err)
	}
	other.How, other.Fingerprint = "seal", "f3"
	last := intend(t, s, other)
	intend(t, s, Supervised{Engine: "docker", ID: "c1", How: "start", Fingerprint: "f1"})
	if err := s.EndSupervision(ctx, "docker", "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetSupervisedMode(ctx, "podman", "c1", "enforce"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)

	s = open(t, dir)
	want := []Supervised{web, other}
	want[0].Seq, want[0].State, want[0].PID, want[0].Started = first, Done, 42, math.MaxInt64
	want[1].Seq, want[1].State = last, Intended
	want[0].Mode, want[1].Mode = "enforce", "enforce"
	if diff := cmp.Diff(want, supervised(t, s), cmpopts.IgnoreFields(Supervised{}, "Updated")); diff != "" {
		t.Errorf("supervised (-want +got):\n%s", diff)
	}
	for range 2 {
		if err := s.EndSupervision(ctx, "podman", "c1"); err != nil {
			t.Error(err)
		}
	}
	if got := supervised(t, s); len(got) != 0 {
		t.Errorf("after the end: %+v", got)
	}
	if err := s.ConfirmSupervision(ctx, last, 42, 7); !errors.Is(err, ErrNotFound) {
		t.Errorf("confirm for a container that ended: %v, want ErrNotFound", err)
	}
}

func TestSupervisedRefusesNonsense(t *testing.T) {
	s := open(t, stateDir(t))
	good := Supervised{Engine: "e", ID: "i", How: "start", Fingerprint: "f"}
	for name, spoil := range map[string]func(*Supervised){
		"no engine":      func(v *Supervised) { v.Engine = "" },
		"no id":          func(v *Supervised) { v.ID = "" },
		"no filter":      func(v *Supervised) { v.Fingerprint = "" },
		"no way":         func(v *Supervised) { v.How = "" },
		"negative pid":   func(v *Supervised) { v.PID = -1 },
		"a long id":      func(v *Supervised) { v.ID = strings.Repeat("x", 257) },
		"a long boot id": func(v *Supervised) { v.Boot = strings.Repeat("x", 257) },
	} {
		v := good
		spoil(&v)
		if _, err := s.IntendSupervision(ctx, v); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if err := s.ConfirmSupervision(ctx, 99, 1, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("confirm of nothing: %v", err)
	}
}

// Containers come and go; the table does not grow with them.
func TestSupervisedIsPruned(t *testing.T) {
	s := open(t, stateDir(t))
	stays := intend(t, s, Supervised{Engine: "e", ID: "stays", How: "start", Fingerprint: "f"})
	if _, err := s.write.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
		INSERT INTO supervised (engine, id, name, workload, pid, started, boot, how, mode, revision, fingerprint, state, updated)
		SELECT 'e', 'old' || i, '', '', 0, 0, '', 'start', '', 0, 'f', 'gone', 0 FROM n`, maxGone+10); err != nil {
		t.Fatal(err)
	}
	intend(t, s, Supervised{Engine: "e", ID: "last", How: "start", Fingerprint: "f"})
	if err := s.EndSupervision(ctx, "e", "last"); err != nil {
		t.Fatal(err)
	}
	var gone int
	if err := s.read.QueryRow(`SELECT count(*) FROM supervised WHERE state = 'gone'`).Scan(&gone); err != nil || gone != maxGone {
		t.Errorf("%d rows of what is gone, %v, want %d", gone, err, maxGone)
	}
	if got := supervised(t, s); len(got) != 1 || got[0].Seq != stays {
		t.Errorf("supervised = %+v, want the one that still runs", got)
	}
}

// superviseForever says on stdout what it is about to do to the kernel, once it is recorded, and that it was done.
func superviseForever(dir string) error {
	s, err := Open(dir, clock())
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		v := Supervised{Engine: "e", ID: fmt.Sprint("c", i%20), How: "attach", Fingerprint: fmt.Sprint(i), PID: 1}
		seq, err := s.IntendSupervision(ctx, v)
		if err != nil {
			return err
		}
		fmt.Println("touch", seq, v.Fingerprint)
		if err := s.ConfirmSupervision(ctx, seq, 0, 0); err != nil {
			return err
		}
		fmt.Println("done", seq, v.Fingerprint)
	}
}

// Whatever was done to a kernel is on record after kill -9, at least as intended; and what was confirmed is confirmed.
func TestKilledWhileSupervising(t *testing.T) {
	dir := stateDir(t)
	said := map[int64]string{}
	for round := range 4 {
		cmd := child(t, "supervise", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var word, print string
			var seq int64
			if _, err := fmt.Sscan(lines.Text(), &word, &seq, &print); err != nil {
				t.Fatalf("child said %q: %v", lines.Text(), err)
			}
			said[seq] = word
			if n == 2+round*11 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("child ended by itself, want killed")
		}
		s := open(t, dir)
		state := map[int64]SupervisionState{}
		for _, v := range supervised(t, s) {
			state[v.Seq] = v.State
		}
		for seq, word := range said {
			if got := state[seq]; got != Done && (word == "done" || got != Intended) {
				t.Errorf("round %d: change %d was %s, and is recorded as %q", round, seq, word, got)
			}
		}
		closeStore(t, s)
	}
}

// A database of the release before is brought up to date, with everything in it.
func TestMigrationFromTheFirst(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	put(t, s, testPolicy("redis", 1), "learned")
	for _, statement := range []string{"DROP TABLE modes", "DROP TABLE supervised", "DROP TABLE oracles", "DROP TABLE loops", "DROP TABLE loop_records", "PRAGMA user_version = 1"} {
		if _, err := s.write.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	s = open(t, dir)
	if _, _, err := s.Policy(ctx, "redis"); err != nil {
		t.Error(err)
	}
	intend(t, s, Supervised{Engine: "e", ID: "i", How: "start", Fingerprint: "f"})
	if err := s.PutMode(ctx, Mode{Workload: "w", Mode: "auto", Now: "learn"}); err != nil {
		t.Error(err)
	}
}

// On a full disk nothing is recorded, so nothing may be done; what was recorded before is still there.
func TestIntendOnAFullStore(t *testing.T) {
	s := open(t, stateDir(t))
	if _, err := s.write.Exec("PRAGMA max_page_count = 1"); err != nil { // at least what there is
		t.Fatal(err)
	}
	var err error
	recorded := 0
	for ; err == nil && recorded < 10_000; recorded++ {
		_, err = s.IntendSupervision(ctx, Supervised{Engine: "e", ID: fmt.Sprint(recorded), How: "start", Fingerprint: strings.Repeat("f", 256)})
	}
	if !errors.Is(err, ErrFull) || hint.Of(err) == "" {
		t.Fatalf("after %d changes: %v, want ErrFull with a hint", recorded, err)
	}
	if got := supervised(t, s); len(got) != recorded-1 {
		t.Errorf("%d changes, want the %d that were reported as recorded", len(got), recorded-1)
	}
}
