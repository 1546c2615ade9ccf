// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
)

// waiting calls, once there are so many.
func (d *daemon) waiting(questions, threads int) (list []api.Waiting) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%d threads wait with %d questions", threads, questions), func() (bool, string) {
		text := d.whittle("judge", "list", "--json")
		list = nil
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			d.t.Fatal(err)
		}
		have := 0
		for _, w := range list {
			have += w.Count
		}
		return len(list) == questions && have == threads, text
	})
	return list
}

// TestAskedPerson: what the panel cannot decide waits for a person, and for nobody else's calls.
func TestAskedPerson(t *testing.T) {
	t.Parallel()
	ms := newMasters(t, "--ask", "10m")
	s, other := ms.start(t, "asks"), ms.start(t, "other")
	ms.d.supervised(s.id, api.ModeEnforce, policy.Run)
	ms.d.supervised(other.id, api.ModeEnforce, policy.Run)

	ask := func(threads int) api.Waiting {
		t.Helper()
		s.does("threads", threads)
		s.does("begin", forbidden, 1)
		w := ms.d.waiting(1, threads)[0]
		if w.Case.Question.Call.Nr != forbidden || w.Name != s.id || w.Workload != ms.workload {
			t.Errorf("what waits: %+v", w)
		}
		s.allowed(unix.SYS_PERSONALITY, 1) // its main thread goes on meanwhile
		other.allowed(unix.SYS_PERSONALITY, 1)
		return w
	}
	joined := func(good, failed int) {
		t.Helper()
		good++ // the main thread's
		if m := s.does("join"); m.good != good || m.failed != failed || failed > 0 && m.errno != unix.EPERM {
			t.Errorf("%d calls went through and %d failed with %v, want %d and %d", m.good, m.failed, m.errno, good, failed)
		}
	}

	ms.d.whittle("judge", "allow", fmt.Sprint(ask(3).ID))
	joined(3, 0)
	first := ask(1).ID // once is once
	ms.d.whittle("judge", "deny", fmt.Sprint(first), "--why", "not this")
	joined(0, 1)
	if out, err := ms.d.try("judge", "allow", fmt.Sprint(first)); err == nil || !strings.Contains(err.Error(), "nothing waits") {
		t.Errorf("an answer to what was answered: %v, %s", err, out)
	}
	ms.d.whittle("judge", "allow", fmt.Sprint(ask(2).ID), "--always", "--why", "it is needed")
	joined(2, 0)
	s.allowed(forbidden, 5)
	other.allowed(forbidden, 5)
	ms.d.waiting(0, 0)

	var asked []string
	for _, e := range ms.d.events() {
		if e.Kind == "asked" {
			asked = append(asked, e.Text)
		}
	}
	for _, want := range []string{"waits for a person", "allowed by root", "refused by root: not this", "allowed by root: it is needed"} {
		if !strings.Contains(strings.Join(asked, "\n"), want) {
			t.Errorf("no event says %q: %q", want, asked)
		}
	}
}

// TestAskedInVain: without an answer the call is refused when its time is over, and when the agent stops.
func TestAskedInVain(t *testing.T) {
	t.Parallel()
	ms := newMasters(t, "--ask", "1s")
	s := ms.start(t, "asks")
	ms.d.supervised(s.id, api.ModeEnforce, policy.Run)
	if m := s.does("call", forbidden, 1); m.failed != 1 || m.errno != unix.EPERM {
		t.Errorf("%+v", m)
	}
	ms.d.waiting(0, 0)
	ms.d.end(unix.SIGTERM)
	ms.d.start(append(noEngine, "--ask", "10m")...)
	s.supervised()
	s.does("threads", 2)
	s.does("begin", forbidden, 1)
	ms.d.waiting(1, 2)
	ms.d.end(unix.SIGTERM) // and not by anybody's answer
	if m := s.does("join"); m.good != 0 || m.failed != 2 {
		t.Errorf("when the agent stopped: %+v", m)
	}
	ms.d.start(noEngine...)
	s.supervised()
	s.allowed(unix.SYS_PERSONALITY, 1)
}
