// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

func TestContainerOrPID(t *testing.T) {
	for _, tt := range []struct {
		word, container string
		pid             int
		usage           bool
	}{
		{"web", "web", 0, false},
		{"4711", "", 4711, false},
		{"4711a", "4711a", 0, false},
		{"-1", "-1", 0, false}, // cobra takes it for a flag
		{"0", "", 0, true},
		{"2147483648", "", 0, true},
		{"", "", 0, true},
		{"١٢", "١٢", 0, false}, // digits of another script are no number of a process
	} {
		container, pid, err := containerOrPID(tt.word)
		if container != tt.container || pid != tt.pid || errors.Is(err, errUsage) != tt.usage {
			t.Errorf("containerOrPID(%q) = %q, %d, %v, want %q, %d, usage error %v", tt.word, container, pid, err, tt.container, tt.pid, tt.usage)
		}
	}
}

// A shell reads each word as it is, and runs nothing.
func TestShellWord(t *testing.T) {
	for _, word := range []string{
		"redis-1f2e", "i386:brk", "#451", "", "a b", "$(touch x)", "`id`", "it's", "-n", "a;b", "a&b", "~", "*", "a>b", `\`, `"`, "!x", "{a,b}",
	} {
		out, err := exec.Command("sh", "-c", "printf '%s|' "+shellWord(word)).Output()
		if err != nil || string(out) != word+"|" {
			t.Errorf("sh reads %s as %q, %v, want %q", shellWord(word), out, err, word)
		}
	}
	if got := shellWord("a\x1b[2J\nb"); strings.ContainsAny(got, "\x1b\n") {
		t.Errorf("shellWord kept control characters: %q", got)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 999 * time.Millisecond: "0s", 59 * time.Second: "59s", time.Minute: "1m0s", 3599 * time.Second: "59m59s",
		time.Hour: "1h0m", 24*time.Hour - 1: "23h59m", 51 * time.Hour: "2d3h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}

// A deviation is never shown as the intention, however the rest looks.
func TestAttestation(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		s    api.Supervision
		want string
	}{
		{api.Supervision{}, "not read back yet"},
		{api.Supervision{Attested: now, Attestation: "as intended: 3 processes"}, "as intended: 3 processes"},
		{api.Supervision{Deviates: true, Attestation: "no listener"}, "NOT AS INTENDED: no listener"},
		{api.Supervision{Attested: now, Deviates: true, Attestation: "x"}, "NOT AS INTENDED: x"},
	} {
		if got := attestation(&tt.s); got != tt.want {
			t.Errorf("attestation(%+v) = %q, want %q", tt.s, got, tt.want)
		}
	}
}

// An agent that does not say the mode is not taken to enforce.
func TestAttachedText(t *testing.T) {
	for mode, want := range map[api.WorkloadMode]string{
		api.ModeEnforce: "web runs under the policy of nginx-8f1b, in enforce: others are refused",
		api.ModeShadow:  "web runs under the policy of nginx-8f1b, in shadow: others are counted, and let through",
		"off":           "web runs under the policy of nginx-8f1b, in off: others are let through",
		"":              "web runs under the policy of nginx-8f1b: others are answered as the workload's mode says",
	} {
		text, numbers := attachedText(api.AttachResult{Container: "web", Workload: "nginx-8f1b", Mode: mode, Open: 1, Held: 2})
		got := strings.Replace(text+": "+numbers, "the kernel lets 1 call pass; 2 more are held and allowed; ", "", 1)
		if got != want {
			t.Errorf("mode %q: %q, want %q", mode, got, want)
		}
	}
}
