// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/workload"
)

var update = flag.Bool("update", false, "write the golden policies and progress of testdata anew")

// Traces of real services that must be there, by the name before .trace.json.gz.
var required = []string{"memcached", "nginx", "node", "postgres", "python", "redis"}

// TestReplay learns from every recorded trace, as a whole and as it grew, and compares with NAME.policy.json and
// NAME.progress.txt beside it.
func TestReplay(t *testing.T) {
	const suffix = ".trace.json.gz"
	files, err := filepath.Glob("testdata/*" + suffix)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range required {
		if _, err := os.Stat("testdata/" + name + suffix); err != nil {
			t.Errorf("a recorded trace is missing: %v", err)
		}
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), suffix)
		t.Run(name, func(t *testing.T) {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			trace, err := observe.Read(f)
			if err != nil {
				t.Fatal(err)
			}
			r := Analyse(trace, Default())
			encoded, err := policy.Encode(Propose(workload.Workload{Image: name, Command: []string{name}}, trace, r))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+name+".policy.json", encoded)
			golden(t, "testdata/"+name+".progress.txt", progress(trace, r))
		})
	}
}

// progress is what a person would have seen on the terminal: a line whenever something but the numbers changed, and every
// tenth epoch.
func progress(trace observe.Trace, whole Result) []byte {
	var b bytes.Buffer
	last := ""
	line := func(at observe.Trace, r Result, always bool) {
		state := fmt.Sprintf("%-6s %3d calls, settled %v", r.Phase, r.Distinct, r.Settled.Settled)
		if state == last && !always {
			return
		}
		last = state
		fmt.Fprintf(&b, "%10s  %s, next burst %.2g, next epoch %.2g\n", show(at.Length), state,
			r.Settled.PUnseen, estimate(r.Estimates, policy.Run).Epochs.PUnseen())
	}
	for e := 1; e < len(trace.Epochs); e++ {
		prefix := trace.Until(uint32(e))
		line(prefix, Analyse(prefix, Default()), e%10 == 0)
	}
	line(trace, whole, true)
	fmt.Fprintf(&b, "%s\n%s\nSPEAKER: epoch %d of %d, ours %d: %s\n", whole.Cut.Reason, whole.Settled.Reason,
		whole.Speaker.BootEnd, len(trace.Epochs), whole.Cut.BootEnd, whole.Speaker.Reason)
	return b.Bytes()
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s is missing: run go test ./internal/learn -run TestReplay -update and review it", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got)\n%s", file, diff)
	}
}
