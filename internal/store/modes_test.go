// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestModes(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	if _, err := s.Mode(ctx, "w"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Mode of nothing: %v, want ErrNotFound", err)
	}
	at := time.Date(2025, 1, 2, 3, 4, 5, 6000, time.UTC)
	want := []Mode{
		{Workload: "a", Mode: "auto", By: "default", Since: at, Now: "shadow", ShadowSince: at.Add(time.Hour), WouldDeny: 7},
		{Workload: "b", Mode: "off", By: "ro\x1bot", Why: "noisy\n", Since: at, Now: "off", WouldDeny: math.MaxUint64},
	}
	for _, m := range append([]Mode{{Workload: "a", Mode: "learn", Now: "learn", Since: at, By: "label"}}, want...) {
		if err := s.PutMode(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	want[1].By, want[1].Why, want[1].WouldDeny = "ro?ot", "noisy?", math.MaxInt64
	closeStore(t, s)
	s = open(t, dir)
	got, err := s.Modes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
	if one, err := s.Mode(ctx, "a"); err != nil || one != want[0] {
		t.Errorf("Mode = %+v, %v, want %+v", one, err, want[0])
	}
	for _, bad := range []Mode{
		{Mode: "auto", Now: "learn"},
		{Workload: "a", Now: "learn"},
		{Workload: "a", Mode: "auto"},
		{Workload: "a", Mode: "auto", Now: "auto"},
		{Workload: "a", Mode: "on", Now: "enforce"},
	} {
		if err := s.PutMode(ctx, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("PutMode(%+v) = %v, want ErrInvalid", bad, err)
		}
	}
}
