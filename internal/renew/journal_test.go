// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
	"golang.org/x/sys/unix"
)

func someHeader(old, successor string) header {
	return header{Request: Request{Container: old}, Plan: Plan{Container: old, Strategy: Hold}, Engine: "podman", Old: old, New: successor,
		Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func mustBegin(t *testing.T, dir string, h header) *journal {
	t.Helper()
	j, err := begin(dir, h)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func mustAdd(t *testing.T, j *journal, all ...entry) {
	t.Helper()
	for _, e := range all {
		if err := j.add(e); err != nil {
			t.Fatal(err)
		}
	}
}

// abandon a journal as a killed process does: the lock goes, the file stays.
func abandon(t *testing.T, j *journal) {
	t.Helper()
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
}

func TestJournalIsTakenOver(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []entry
		torn    string // after the last line
		forward bool
		made    string
		last    Step
	}{
		{"nothing", nil, "", false, "", ""},
		{"made", []entry{{Step: StepMake}, {Made: "m"}}, "", false, "m", StepMake},
		{"made again", []entry{{Step: StepMake}, {Made: "m"}, {Step: StepStart}, {Step: StepMake}, {Made: "n"}}, "", false, "n", StepMake},
		{"in the middle of that", []entry{{Step: StepMake}, {Made: "m"}, {Step: StepStart}, {Step: StepMake}}, "", false, "", StepMake},
		{"turned", []entry{{Step: StepMake}, {Made: "m"}, {Step: StepTurn}, {Step: StepDrain}}, "", true, "m", StepDrain},
		{"turned and back", []entry{{Step: StepTurn}, {Step: StepBack}}, "", false, "", StepBack},
		{"torn", []entry{{Step: StepHold}}, `{"step":"tu`, false, "", StepHold},
		{"torn at its end", []entry{{Step: StepHold}}, `{"step":"turn"}`, false, "", StepHold},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j := mustBegin(t, dir, someHeader("p", "s"))
			mustAdd(t, j, tt.entries...)
			name := j.file.Name()
			if _, err := j.file.WriteString(tt.torn); err != nil {
				t.Fatal(err)
			}
			if other, err := take(name); other != nil || err != nil {
				t.Fatalf("taken from a living process: %v, %v", other, err)
			}
			abandon(t, j)
			got, err := take(name)
			if err != nil || got == nil {
				t.Fatalf("take: %v, %v", got, err)
			}
			if got.forward() != tt.forward || got.made() != tt.made || got.last() != tt.last || len(got.entries) != len(tt.entries) {
				t.Errorf("forward %v, made %q, last %q, %d entries; want %v, %q, %q, %d", got.forward(), got.made(), got.last(), len(got.entries),
					tt.forward, tt.made, tt.last, len(tt.entries))
			}
			// What is written next is not spoilt by what was torn.
			mustAdd(t, got, entry{Step: StepBack})
			abandon(t, got)
			again, err := take(name)
			if err != nil || again == nil || again.last() != StepBack {
				t.Fatalf("after another line: %v, %v", again, err)
			}
			if err := again.remove(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOneRenewalOfAContainer(t *testing.T) {
	dir := t.TempDir()
	first := mustBegin(t, dir, someHeader("p", "s"))
	mustAdd(t, first, entry{Made: "made"})
	for _, tt := range []struct {
		name, old, successor string
		want                 error
	}{
		{"the same", "p", "s2", ErrBusy},
		{"its successor", "made", "s2", ErrBusy},
		{"to its predecessor", "q", "p", ErrBusy},
		{"to its successor", "q", "made", ErrBusy},
		{"by the same unit", "q", "s", ErrBusy},
		{"others", "q", "r", nil},
	} {
		j, err := begin(dir, someHeader(tt.old, tt.successor))
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if errors.Is(err, ErrBusy) && !strings.Contains(err.Error(), "since 03:04:05, by process") {
			t.Errorf("%s: %v does not say who and since when", tt.name, err)
		}
		if j != nil {
			if err := j.remove(); err != nil {
				t.Error(err)
			}
		}
	}
	abandon(t, first)
	if _, err := begin(dir, someHeader("p", "s3")); !errors.Is(err, ErrUnfinished) {
		t.Errorf("after its process was killed: %v, want ErrUnfinished", err)
	}
	taken, err := take(first.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, taken, entry{Result: &Result{ID: taken.head.ID, Outcome: Renewed}})
	abandon(t, taken)
	mustBegin(t, dir, someHeader("p", "s4")).remove()
	if err := Forget(dir, taken.head.ID); err != nil {
		t.Error(err)
	}
	if names, err := journals(dir); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// A full disk is noticed before anything is changed, and what was reserved is enough for what follows.
func TestFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	j := mustBegin(t, dir, someHeader("p", "s"))
	fill(t, filepath.Join(dir, "rest"))
	for range 100 {
		mustAdd(t, j, entry{Step: StepBack, At: time.Now()})
	}
	other, err := begin(dir, someHeader("q", "r"))
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("begin = %v, %v; want no space", other, err)
	}
	if names, _ := journals(dir); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
	// Where nothing was reserved, the line that does not fit is not there, and the next that does is whole.
	if err := j.file.Truncate(j.size); err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(dir, "more"))
	var full error
	for range 1000 {
		if full = j.add(entry{Step: StepHold, Made: strings.Repeat("x", 1000)}); full != nil {
			break
		}
	}
	if !errors.Is(full, unix.ENOSPC) {
		t.Errorf("on a full disk: %v", full)
	}
	abandon(t, j)
	got, err := take(j.file.Name())
	if err != nil || got == nil || len(got.entries) != len(j.entries) {
		t.Fatalf("take: %v, %v", got, err)
	}
	if err := got.remove(); err != nil {
		t.Error(err)
	}
}

// fill the file system.
func fill(t *testing.T, name string) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{1 << 16, 1 << 12, 1} {
		for err = nil; err == nil; {
			_, err = file.Write(bytes.Repeat([]byte{1}, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}

func TestJournalsThatAreNone(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"a torn header", `{"version":1`, ""},
		{"no JSON", "x\n", "understand the header"},
		{"of another version", `{"version":2,"old":"p","new":"s","plan":{"strategy":"hold"}}` + "\n", "not one of this version"},
		{"without a plan", `{"version":1,"old":"p","new":"s"}` + "\n", "not one of this version"},
		{"a bad line", `{"version":1,"old":"p","new":"s","plan":{"strategy":"hold"}}` + "\n\x00\n", "understand line 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "x"+suffix)
			if err := os.WriteFile(name, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			j, err := take(name)
			if j != nil || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("take = %v, %v; want %q", j, err, tt.want)
			}
			_, left := os.Stat(name)
			if (left == nil) != (tt.want != "") {
				t.Errorf("the file: %v; what was never begun goes, what is not understood stays", left)
			}
		})
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"version":1,"old":"p","new":"s","plan":{"strategy":"hold"}}` + "\n" + `{"step":"turn"}` + "\n"))
	f.Add([]byte("{}\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		j, err := parseLines(text)
		if err != nil || j == nil {
			return
		}
		j.forward()
		j.made()
		j.last()
		if j.size > int64(len(text)) || j.head.Plan.Strategy == "" {
			t.Errorf("%q: %+v", text, j)
		}
	})
}

func FuzzReports(f *testing.F) {
	f.Add([]byte(`{"done":{"step":"make"}}` + "\n" + `{"result":{"outcome":"renewed"}}` + "\n"))
	f.Add([]byte(`{"error":"x","cause":"busy"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		last, err := readReports(bytes.NewReader(text), func(Done) {})
		if err == nil && last.Done != nil {
			t.Errorf("%q: the last report is a step", text)
		}
	})
}
