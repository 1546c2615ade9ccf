// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// asks a desk, and tells whether the call waits. Nobody holds the calls: to the supervisor their callers are gone.
type asks struct {
	t *testing.T
	*desk
	agent      *Agent
	supervisor *supervise.Supervisor
	at         time.Time
	id         uint64
}

func newAsks(t *testing.T) *asks {
	s, err := supervise.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	a := &asks{t: t, agent: &Agent{}, supervisor: s, at: time.Unix(1000, 0)}
	a.desk = &a.agent.desk
	*a.desk = desk{limit: time.Hour, now: func() time.Time { return a.at }, tell: func(string, *question, string) {}}
	t.Cleanup(func() { a.drop(1); a.drop(2) })
	return a
}

func (a *asks) waits(of supervise.Container, call string, args ...uint64) bool {
	nr, ok := syscalls.Number(syscalls.X86_64, call)
	if !ok {
		a.t.Fatal(call)
	}
	a.id++
	var c judge.Case
	c.Question.Call = syscalls.Call{ABI: syscalls.X86_64, Nr: nr}
	copy(c.Question.Args[:], args)
	return a.park(api.Waiting{Name: "web-whittle-new-x"}, a.supervisor, supervise.Held{Container: of, ID: a.id, TID: 1, Call: c.Question.Call}, 1, c)
}

func (a *asks) questions() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.waiting)
}

// A person who reads "kill 7 with SIGTERM" and says yes has not said yes to another thread's SIGKILL for everybody.
func TestOneAnswerIsForOneUse(t *testing.T) {
	a := newAsks(t)
	for _, tt := range []struct {
		call      string
		args      []uint64
		questions int
	}{
		{"kill", []uint64{7, 15}, 1},
		{"kill", []uint64{7, 15, 99}, 1}, // what the call does not look at
		{"kill", []uint64{1<<64 - 1, 9}, 2},
		{"socket", []uint64{1, 1, 0}, 3},
		{"socket", []uint64{2, 1, 0}, 4},
		{"setfsuid", []uint64{1}, 5},
		{"setfsuid", []uint64{2}, 5}, // nothing is known of its arguments, and the panel did not look at them
	} {
		if !a.waits(1, tt.call, tt.args...) || a.questions() != tt.questions {
			t.Errorf("%s%v: %d questions, want %d", tt.call, tt.args, a.questions(), tt.questions)
		}
	}
}

// A thread that signals interrupt asks again with each.
func TestInterruptedThreadsDoNotFillAQuestion(t *testing.T) {
	a := newAsks(t)
	for i := range 3 * maxThreadsOfOneCall {
		if !a.waits(1, "setfsuid") {
			t.Fatalf("time %d: refused", i)
		}
	}
}

// What nobody answered does not stop the service again and again.
func TestAskedInVainIsNotAskedAgain(t *testing.T) {
	a := newAsks(t)
	if !a.waits(1, "setfsuid") {
		t.Fatal("refused")
	}
	a.expire(1)
	if a.waits(1, "setfsuid") {
		t.Error("asked again at once")
	}
	if !a.waits(2, "setfsuid") || !a.waits(1, "setfsgid") {
		t.Error("another container, or call, is not asked about")
	}
	a.at = a.at.Add(unansweredHolds * time.Hour)
	if !a.waits(1, "setfsuid") {
		t.Error("never asked again")
	}
	a.expire(4)
	a.drop(1)
	if len(a.vain) != 0 {
		t.Errorf("%d questions of a container that is gone are remembered", len(a.vain))
	}
}

// The successor in a renewal serves under another name than it started with.
func TestQuestionsFollowARename(t *testing.T) {
	a := newAsks(t)
	names := func() (names []string) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, id := range slices.Sorted(maps.Keys(a.waiting)) {
			names = append(names, a.waiting[id].Name)
		}
		return names
	}
	a.waits(1, "setfsuid")
	a.waits(2, "setfsuid")
	a.agent.Log, a.agent.Now = slog.New(slog.DiscardHandler), time.Now
	c := &tracked{held: &held{handle: 1}}
	c.view.Name = "web-whittle-new-x"
	(&model{agent: a.agent}).rename(c, "web")
	a.waits(1, "setfsgid")
	if got, want := names(), []string{"web", "web-whittle-new-x", "web"}; !slices.Equal(got, want) {
		t.Errorf("the questions are of %q, want %q", got, want)
	}
	a.drop(1)
	if len(a.names) != 0 {
		t.Errorf("names of containers that are gone are kept: %v", a.names)
	}
}
