// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestOracles(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	for _, o := range [][2]string{{"b", `{"kind":"valgrind"}`}, {"a", `{"kind":"hardened"}`}, {"b", `{"kind":"sanitizer"}`}} {
		if err := s.PutOracle(ctx, o[0], []byte(o[1])); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	s = open(t, dir)
	got, err := s.Oracles(ctx)
	want := []Oracle{{Workload: "a", Spec: json.RawMessage(`{"kind":"hardened"}`)}, {Workload: "b", Spec: json.RawMessage(`{"kind":"sanitizer"}`)}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Oracle{}, "Updated")); diff != "" || err != nil {
		t.Errorf("oracles, %v (-want +got):\n%s", err, diff)
	}
	if err := s.DeleteOracle(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := s.DeleteOracle(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed again: %v, want ErrNotFound", err)
	}
	if got, err := s.Oracles(ctx); err != nil || len(got) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range [][2]string{{"", "{}"}, {strings.Repeat("x", 257), "{}"}, {"a", "{"}, {"a", ""}, {"a", `"` + strings.Repeat("x", maxBlob) + `"`}} {
		if err := s.PutOracle(ctx, bad[0], []byte(bad[1])); !errors.Is(err, ErrInvalid) {
			t.Errorf("PutOracle(%.20q, %.20q) = %v, want ErrInvalid", bad[0], bad[1], err)
		}
		if err := s.PutLoop(ctx, bad[0], []byte(bad[1])); !errors.Is(err, ErrInvalid) {
			t.Errorf("PutLoop(%.20q, %.20q) = %v, want ErrInvalid", bad[0], bad[1], err)
		}
	}
}

func loopRecord(id int64, text string) LoopRecord {
	return LoopRecord{Workload: "w", ID: id, Started: time.Unix(1_800_000_000+id, 0).UTC(), Record: json.RawMessage(fmt.Sprintf("%q", text))}
}

func TestLoops(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	put := func(saved string, records ...LoopRecord) {
		t.Helper()
		if err := s.PutLoop(ctx, "w", []byte(saved), records...); err != nil {
			t.Fatal(err)
		}
	}
	put(`1`, loopRecord(1, "under way"))
	put(`2`, loopRecord(1, "learned"), loopRecord(2, "under way"))
	put(`3`)
	other := LoopRecord{Workload: "v", ID: 1, Started: time.Unix(1_800_000_000, 0).UTC(), Record: json.RawMessage(`"other"`)}
	if err := s.PutLoop(ctx, "v", []byte(`{}`), other); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []LoopRecord{loopRecord(0, ""), loopRecord(-1, ""), other, {Workload: "w", ID: 1, Record: []byte("{")}} {
		if err := s.PutLoop(ctx, "w", []byte(`4`), bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("PutLoop with %+v = %v, want ErrInvalid", bad, err)
		}
	}
	closeStore(t, s)

	s = open(t, dir)
	loops, err := s.Loops(ctx)
	want := []Loop{{Workload: "v", Saved: json.RawMessage(`{}`)}, {Workload: "w", Saved: json.RawMessage(`3`)}}
	if diff := cmp.Diff(want, loops, cmpopts.IgnoreFields(Loop{}, "Updated")); diff != "" || err != nil {
		t.Errorf("loops, %v (-want +got):\n%s", err, diff)
	}
	records, err := s.LoopRecords(ctx, "w", 0)
	if diff := cmp.Diff([]LoopRecord{loopRecord(2, "under way"), loopRecord(1, "learned")}, records); diff != "" || err != nil {
		t.Errorf("records, %v (-want +got):\n%s", err, diff)
	}
	all, err := s.LoopRecords(ctx, "", 2)
	if diff := cmp.Diff([]LoopRecord{loopRecord(2, "under way"), loopRecord(1, "learned")}, all); diff != "" || err != nil {
		t.Errorf("two records of all, %v (-want +got):\n%s", err, diff)
	}
	for range 2 {
		if err := s.DeleteLoop(ctx, "w"); err != nil {
			t.Error(err)
		}
	}
	if records, err := s.LoopRecords(ctx, "w", 0); err != nil || len(records) != 2 {
		t.Errorf("the records went with the loop: %+v, %v", records, err)
	}
}

func TestLoopRecordsArePruned(t *testing.T) {
	s := open(t, stateDir(t))
	if _, err := s.write.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
		INSERT INTO loop_records (workload, id, started, record) SELECT 'w', i, i, '{}' FROM n`, MaxLoopRecords+20); err != nil {
		t.Fatal(err)
	}
	if err := s.PutLoop(ctx, "w", []byte(`{}`), loopRecord(MaxLoopRecords+21, "last")); err != nil {
		t.Fatal(err)
	}
	records, err := s.LoopRecords(ctx, "w", 0)
	if err != nil || len(records) != MaxLoopRecords || records[0].ID != MaxLoopRecords+21 || records[len(records)-1].ID != 22 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

// A database of the version before: nothing in it is lost, and there is room for loops.
func TestLoopsAfterMigration(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	put(t, s, testPolicy("redis", 1), "learned")
	for _, statement := range []string{"DROP TABLE oracles", "DROP TABLE loops", "DROP TABLE loop_records", "PRAGMA user_version = 2"} {
		if _, err := s.write.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	s = open(t, dir)
	if err := s.PutLoop(ctx, "w", []byte(`{}`)); err != nil {
		t.Error(err)
	}
	if entries, err := s.Policies(ctx); err != nil || len(entries) != 1 {
		t.Errorf("policies: %+v, %v", entries, err)
	}
}

// loopForever writes a state and its record, and says which number both have when they were reported as stored.
func loopForever(dir string) error {
	s, err := Open(dir, clock())
	if err != nil {
		return err
	}
	loops, err := s.Loops(ctx)
	if err != nil {
		return err
	}
	n := int64(0)
	if len(loops) == 1 {
		if err := json.Unmarshal(loops[0].Saved, &n); err != nil {
			return err
		}
	}
	for {
		n++
		if err := s.PutLoop(ctx, "w", fmt.Append(nil, n), loopRecord(n, fmt.Sprint(n))); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// kill -9 between any two steps: state and record are of one moment, and not older than what was reported.
func TestKilledWhileLooping(t *testing.T) {
	dir := stateDir(t)
	for round := range 4 {
		cmd := child(t, "loop", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var reported int64
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscan(lines.Text(), &reported); err != nil {
				t.Fatalf("child said %q: %v", lines.Text(), err)
			}
			if n == 1+round*11 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || reported == 0 {
			t.Fatalf("child: %v after %d", err, reported)
		}
		s := open(t, dir)
		loops, err := s.Loops(ctx)
		if err != nil || len(loops) != 1 {
			t.Fatalf("%+v, %v", loops, err)
		}
		records, err := s.LoopRecords(ctx, "w", 1)
		if err != nil || len(records) != 1 {
			t.Fatalf("%+v, %v", records, err)
		}
		var saved int64
		if err := json.Unmarshal(loops[0].Saved, &saved); err != nil || saved < reported || records[0].ID != saved {
			t.Errorf("round %d: state %d, record %d, %v; %d was reported", round, saved, records[0].ID, err, reported)
		}
		closeStore(t, s)
	}
}
