// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/testbed/intruder"
	"github.com/whittle-sec/whittle/testbed/services"
)

// TestAttacks: there are as many as the evaluation promises, each on a service that there is and with a name of its own.
func TestAttacks(t *testing.T) {
	known := map[string]bool{}
	for _, s := range append(services.All(), victims()...) {
		known[s.Name] = true
	}
	names := map[string]bool{}
	for _, a := range attacks() {
		if !known[a.Service] {
			t.Errorf("%s: there is no service %s", a.Name, a.Service)
		}
		if key := a.Service + "/" + a.Name; names[key] {
			t.Errorf("%s: twice", key)
		} else {
			names[key] = true
		}
		if a.Kind == "" || a.Doc == "" || a.Do == nil {
			t.Errorf("%s: incomplete: %+v", a.Name, a)
		}
	}
	if len(names) < 40 {
		t.Errorf("%d attacks, want 40 at least", len(names))
	}
}

// TestAttackCalls: each call has arguments that do no harm.
func TestAttackCalls(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		return // the lists are x86-64's; reuse takes from them what others do not have
	}
	lists := []string{poisonCalls, poisonMemory, poisonTaught}
	for _, s := range sites {
		lists = append(lists, s.foreign, s.own)
	}
	for _, g := range groups {
		lists = append(lists, g.calls)
	}
	for _, list := range lists {
		for _, name := range words(list) {
			if _, err := intruder.Named(name); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAttempts(t *testing.T) {
	made, err := attempts("setuid 1 from Python\nsocket 0 AF_ALG\n")
	want := []Attempt{{"setuid", unix.EPERM, "from Python"}, {"socket", 0, "AF_ALG"}}
	if err != nil || len(made) != 2 || made[0] != want[0] || made[1] != want[1] {
		t.Errorf("%+v, %v", made, err)
	}
	for _, text := range []string{"failed: NameError('x')", "setuid", "setuid one two"} {
		if made, err := attempts(text); err == nil {
			t.Errorf("%q: %+v", text, made)
		}
	}
}
