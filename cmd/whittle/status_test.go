// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/workload"
)

func TestIsCalled(t *testing.T) {
	c := api.Container{Container: workload.Container{Name: "web", ID: "6e72decb48a7"}, WorkloadName: "nginx-8f1b", WorkloadID: "8f1b537736b9"}
	for _, tt := range []struct {
		one  string
		want bool
	}{
		{"web", true}, {"we", false}, {"6e72", true}, {"nginx", true}, {"nginx-8f1b", true}, {"8f1b5", true}, {"8f1c", false},
		{"nginx-8f1bx", false}, {"", false},
	} {
		if got := isCalled(c, tt.one); got != tt.want {
			t.Errorf("isCalled(%q) = %v, want %v", tt.one, got, tt.want)
		}
	}
}

// A profile of an enforced container is not partial because its refusals were not watched from the beginning.
func TestStatusRowLate(t *testing.T) {
	for _, tt := range []struct {
		mode api.Mode
		want string
	}{
		{api.Learning, "partial: it ran before the agent did"},
		{api.Enforced, "what was refused before the agent ran is unknown"},
	} {
		row := statusRow(api.Container{Mode: tt.mode, Late: true})
		if got := row[len(row)-1]; got != tt.want {
			t.Errorf("%s: the note is %q, want %q", tt.mode, got, tt.want)
		}
	}
}

func TestCount(t *testing.T) {
	got := strings.Join([]string{count(0, "run"), count(1, "run"), count(uint64(2), "more call")}, ", ")
	if want := "0 runs, 1 run, 2 more calls"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
