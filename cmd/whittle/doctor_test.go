// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"
)

func TestFindings(t *testing.T) {
	for _, tc := range []struct {
		name  string
		got   finding
		want  answer
		needs string
	}{
		{"kernel", kernelFinding("6.1.0-28-amd64"), yes, ""},
		{"the least kernel", kernelFinding("5.15.0"), yes, ""},
		{"too old", kernelFinding("5.10.0-33-amd64"), no, "Linux 5.15"},
		{"very old", kernelFinding("4.19.1"), no, "Linux 5.15"},
		{"no release", kernelFinding("plan9"), "", ""},
		{"lockdown off", lockdownFinding("[none] integrity confidentiality\n"), yes, ""},
		{"lockdown for integrity", lockdownFinding("none [integrity] confidentiality\n"), yes, ""},
		{"lockdown for confidentiality", lockdownFinding("none integrity [confidentiality]\n"), no, ""},
		{"lockdown unknown", lockdownFinding(""), "", ""},
		{"clock", clockFinding("tsc"), yes, ""},
		{"slow clock", clockFinding("hpet"), no, ""},
		{"no clock", clockFinding(""), "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.got.Answer != tc.want || tc.got.Needs != tc.needs {
				t.Errorf("got %+v, want %q needing %q", tc.got, tc.want, tc.needs)
			}
			if tc.got.Answer == no && tc.got.Fix == "" {
				t.Errorf("%+v does not say what to do", tc.got)
			}
		})
	}
}

func TestCanLearn(t *testing.T) {
	fixed := func(a answer) func(context.Context, *app) finding {
		return func(context.Context, *app) finding { return finding{Answer: a} }
	}
	for _, tc := range []struct {
		name string
		list []check
		want bool
	}{
		{"all fine", []check{{"a", true, fixed(yes)}, {"b", false, fixed(yes)}}, true},
		{"an option is missing", []check{{"a", true, fixed(yes)}, {"b", false, fixed(no)}}, true},
		{"a need is missing", []check{{"a", true, fixed(no)}, {"b", false, fixed(yes)}}, false},
		{"could not tell is not yes", []check{{"a", true, fixed(unclear)}}, false},
		{"no answer is not yes", []check{{"a", true, fixed("")}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := canLearn(examine(t.Context(), &app{}, tc.list)); got != tc.want {
				t.Errorf("can learn = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestCgroupMount(t *testing.T) {
	for _, tc := range []struct{ name, line, want string }{
		{"unified", "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw", "/sys/fs/cgroup"},
		{"hybrid", "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw", "/sys/fs/cgroup/unified"},
		{"version 1", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", ""},
		{"a space", `41 31 0:38 / /mnt/a\040b rw - cgroup2 none rw`, "/mnt/a b"},
		{"short", "41 - cgroup2 none rw", ""},
		{"empty", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, ok := cgroupMountOf(tc.line); got != tc.want || ok != (tc.want != "") {
				t.Errorf("mount of %q = %q, %v, want %q", tc.line, got, ok, tc.want)
			}
		})
	}
}
