// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

func key(nr uint32) Key {
	return Key{Call: syscalls.Call{ABI: syscalls.X86_64, Nr: nr}, Role: "/bin/service:0", Phase: policy.Run}
}

// again is the machine that a restart at this moment gives.
func again(t testing.TB, m *Machine) *Machine {
	t.Helper()
	data, err := json.Marshal(m.Saved())
	if err != nil {
		t.Fatalf("marshal %+v: %v", m.Saved(), err)
	}
	var saved Saved
	if err := json.Unmarshal(data, &saved); err != nil {
		t.Fatalf("unmarshal %s: %v", data, err)
	}
	return New(m.limits, saved)
}

func ask(t *testing.T, m *Machine, now time.Time, k Key, want Answer) Decision {
	t.Helper()
	d := m.Refused(now, k, "outside the policy")
	if d.Answer != want {
		t.Fatalf("Refused(%s, %s) = %+v, want answer %d; state %s", now.Sub(start), k, d, want, m.State())
	}
	if d.Answer == Deny && d.Why == "" {
		t.Fatalf("Refused(%s, %s): denied without a reason", now.Sub(start), k)
	}
	return d
}

func tick(t *testing.T, m *Machine, now time.Time, want Action) {
	t.Helper()
	got := m.Tick(now)
	if want.Why == "" {
		got.Why = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("Tick(%s) (-want +got):\n%s", now.Sub(start), diff)
	}
}

// One loop that teaches the call that caused it and another; at each step the agent is killed and comes back.
func TestLearns(t *testing.T) {
	m := New(Limits{}, Saved{})
	ask(t, m, at(0), key(1), StartLoop)
	m = again(t, m)
	ask(t, m, at(0.1), key(1), Join)
	if !m.Reached(at(0.5), key(9), 4) {
		t.Fatal("a call of the oracle's boot is not new")
	}
	m.Serving(at(1))
	if m.Reached(at(1.2), key(9), 5) || !m.Reached(at(1.2), key(1), 4) {
		t.Fatal("a call is new once")
	}
	tick(t, m, at(1.6), Action{Commit: []Key{key(9)}})
	m = again(t, m)
	// It was not told whether the policy has it: it asks again, and what was within its grace begins it anew.
	tick(t, m, at(2.5), Action{Commit: []Key{key(9)}})
	m.Committed(at(2.5), []Key{key(9), key(1), key(77)})
	tick(t, m, at(3.5), Action{Commit: []Key{key(1)}})
	m.Committed(at(3.5), []Key{key(1)})
	m = again(t, m)
	tick(t, m, at(16), Action{})
	tick(t, m, at(16.2), Action{Return: true, Why: "nothing new for 15s"})
	m = again(t, m)
	tick(t, m, at(17), Action{Return: true, Why: "nothing new for 15s"})
	// The stop's calls count as well.
	if !m.Reached(at(17.5), key(3), 4) {
		t.Error("a call of the oracle's stop is not new")
	}
	ask(t, m, at(17.6), key(4), Deny)
	m.Returned(at(18))
	tick(t, m, at(18), Action{Commit: []Key{key(3)}})
	ask(t, m, at(18), key(3), Learned)
	m.Committed(at(18), []Key{key(3)})
	m = again(t, m)
	for _, k := range []Key{key(1), key(3), key(9)} {
		ask(t, m, at(19), k, Learned)
	}
	r, ok := m.Record()
	want := Record{
		ID: 1, Cause: "write by /bin/service:0, run", CauseKey: key(1), Started: at(0), Served: at(1), Ended: at(18), State: Production,
		Calls: []string{"close by /bin/service:0, run", "write by /bin/service:0, run", "mmap by /bin/service:0, run"}, Verdict: VerdictLearned,
		Why: "nothing new for 15s", OracleFor: 18 * time.Second,
	}
	want.Calls[0], want.Calls[2] = want.Calls[2], want.Calls[0]
	if diff := cmp.Diff(want, r); diff != "" || !ok {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

// The oracle aborts: what it reached just before is not learned, what is older is, and the cause is not tried for a while.
func TestAttack(t *testing.T) {
	m := New(Limits{}, Saved{})
	ask(t, m, at(0), key(59), StartLoop)
	m.Serving(at(1))
	m.Reached(at(2), key(1), 1)
	ask(t, m, at(3), key(41), Join)
	m.Reached(at(4), key(59), 1)
	m.Aborted(at(4.9), oracle.Report{Kind: "asan", Summary: "stack-buffer-overflow"})
	m = again(t, m)
	if m.Reached(at(5), key(59), 2) || m.Reached(at(5), key(2), 2) {
		t.Error("what an oracle does after it aborted counts")
	}
	tick(t, m, at(7), Action{Commit: []Key{key(1)}, Return: true, Why: "the oracle aborted: stack-buffer-overflow"})
	m.Committed(at(7), []Key{key(1), key(59)})
	m.Returned(at(8))
	tick(t, m, at(20), Action{})
	r, _ := m.Record()
	if r.Verdict != VerdictAttack || r.Report == nil || r.Report.Kind != "asan" || len(r.Calls) != 1 ||
		cmp.Diff([]string{"execve by /bin/service:0, run"}, r.Dropped) != "" {
		t.Errorf("record %+v", r)
	}
	for _, k := range []Key{key(59), key(41)} {
		d := ask(t, m, at(20), k, Deny)
		if d.Until != at(68) || !strings.Contains(d.Why, "stack-buffer-overflow") || !strings.Contains(d.Why, "2026-01-02 03:05:13 UTC") {
			t.Errorf("denied with %+v, want the report and until when", d)
		}
	}
	// Each time in vain doubles it.
	ask(t, m, at(69), key(59), StartLoop)
	m.Serving(at(70))
	m.Aborted(at(71), oracle.Report{Summary: "again"})
	m.Returned(at(72))
	if d := ask(t, m, at(73), key(59), Deny); d.Until != at(72+120) {
		t.Errorf("until %s, want 192 s", d.Until.Sub(start))
	}
}

func TestNobodyAsksAgain(t *testing.T) {
	m := New(Limits{}, Saved{})
	ask(t, m, at(0), key(59), StartLoop)
	m.Serving(at(1))
	tick(t, m, at(15.9), Action{})
	tick(t, m, at(16), Action{Return: true, Why: "nothing new for 15s"})
	m.Returned(at(17))
	if d := ask(t, m, at(18), key(59), Deny); d.Until != at(77) || !strings.Contains(d.Why, "nobody made the call again") {
		t.Errorf("denied with %+v", d)
	}
	if r, _ := m.Record(); r.Verdict != VerdictQuiet {
		t.Errorf("record %+v", r)
	}
}

// The oracle has its time, however many new calls keep coming.
func TestVisitEnds(t *testing.T) {
	m := New(Limits{}, Saved{})
	ask(t, m, at(0), key(0), StartLoop)
	m.Serving(at(1))
	var now float64
	for i := uint32(1); m.State() == InOracle && i < 400; i++ {
		now = float64(i)
		m.Reached(at(now), key(i), 1)
		m.Committed(at(now), m.Tick(at(now)).Commit)
	}
	if now != 300 {
		t.Errorf("it left after %v s, want 300", now)
	}
}

func TestOracleFails(t *testing.T) {
	for _, tc := range []struct {
		name string
		fail func(m *Machine)
		why  string
	}{
		{"never ready", func(m *Machine) { m.Tick(at(90)) }, "the oracle was not ready after 1m30s"},
		{"ends at once", func(m *Machine) { m.Failed(at(1), "exit code 1") }, "exit code 1"},
		{"ends while it serves", func(m *Machine) { m.Serving(at(1)); m.Failed(at(2), "killed by the kernel, out of memory") }, "out of memory"},
		{"rolled back", func(m *Machine) {}, "before the oracle served"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := New(Limits{}, Saved{})
			ask(t, m, at(0), key(1), StartLoop)
			m.Reached(at(0.9), key(2), 1)
			tc.fail(m)
			m = again(t, m)
			m.Returned(at(91))
			r, _ := m.Record()
			if r.Verdict != VerdictFailed || !strings.Contains(r.Why, tc.why) {
				t.Errorf("record %+v, want %q", r, tc.why)
			}
			// Nothing is tried, not only this call.
			if d := ask(t, m, at(92), key(5), Deny); d.Until != at(91+60) || !strings.Contains(d.Why, tc.why) {
				t.Errorf("denied with %+v", d)
			}
			ask(t, m, at(152), key(1), StartLoop)
		})
	}
}

// Production does not come back at once: it is tried again, later each time.
func TestProductionDoesNotComeBack(t *testing.T) {
	m := New(Limits{}, Saved{})
	ask(t, m, at(0), key(1), StartLoop)
	m.Serving(at(1))
	m.Reached(at(1), key(1), 1)
	m.Tick(at(20))
	m.Failed(at(30), "no space left")
	if a := m.Tick(at(34)); a.Return {
		t.Error("tried again at once")
	}
	m = again(t, m)
	if a := m.Tick(at(35)); !a.Return {
		t.Error("not tried again")
	}
	m.Failed(at(36), "no space left")
	if a := m.Tick(at(45)); a.Return {
		t.Error("tried again too soon")
	}
	m.Returned(at(60))
	if r, _ := m.Record(); r.Verdict != VerdictLearned || !strings.Contains(r.Return, "no space left") {
		t.Errorf("record %+v", r)
	}
}

// Who asks for something else each time does not keep the service in its oracle.
func TestIntruderIsLimited(t *testing.T) {
	m := New(Limits{}, Saved{})
	var away time.Duration
	now, loops := start, 0
	for nr := uint32(0); now.Sub(start) < time.Hour; nr++ {
		if d := m.Refused(now, key(nr%1000), ""); d.Answer != StartLoop {
			if d.Until.IsZero() || !strings.Contains(d.Why, "until 2026-") {
				t.Fatalf("denied with %+v: no end", d)
			}
			now = now.Add(10 * time.Second)
			continue
		}
		loops++
		began := now
		m.Serving(now.Add(time.Second))
		for !m.Tick(now).Return {
			now = now.Add(time.Second)
		}
		m.Returned(now)
		away += now.Sub(began)
	}
	if loops != 3 || away > 12*time.Minute {
		t.Errorf("%d loops with %s in an hour, want 3 (each counts twice) and no more than 12 minutes", loops, away)
	}
}

// From nothing, each loop teaches something: the limits of an hour do not stop the first convergence.
func TestConverges(t *testing.T) {
	m := New(Limits{}, Saved{})
	now := start
	once := func(nr uint32, want Answer) {
		t.Helper()
		ask(t, m, now, key(nr), want)
		if want != StartLoop {
			return
		}
		m.Serving(now.Add(time.Second))
		m.Reached(now.Add(2*time.Second), key(nr), 1)
		for !m.Tick(now).Return {
			now = now.Add(time.Second)
		}
		m.Returned(now)
		m.Committed(now, m.Tick(now).Commit)
		m = again(t, m)
	}
	for nr := range uint32(30) {
		once(nr, StartLoop)
	}
	// Then the limits of an hour hold.
	for nr := range uint32(6) {
		once(100+nr, StartLoop)
	}
	once(200, Deny)
	now = now.Add(2 * time.Hour)
	once(200, StartLoop)
	if !m.Status(now).Converged {
		t.Error("two hours without a loop, and not converged")
	}
}

func TestClockSetBack(t *testing.T) {
	m := New(Limits{}, Saved{})
	ask(t, m, at(0), key(1), StartLoop)
	m.Serving(at(1))
	m.Reached(at(2), key(1), 1)
	m.Tick(at(2.5))
	back := func(s float64) time.Time { return at(s).Add(-1000 * time.Hour) }
	tick(t, m, back(2.5), Action{}) // no time has passed
	tick(t, m, back(2.9), Action{})
	tick(t, m, back(3.5), Action{Commit: []Key{key(1)}})
	if a := m.Tick(back(17.5)); !a.Return {
		t.Error("after the clock was set back the oracle stays")
	}
	// Two goroutines.
	tick(t, m, back(17.2), Action{Commit: []Key{key(1)}, Return: true})
}

func TestForgetAndReset(t *testing.T) {
	m := New(Limits{}, Saved{})
	ask(t, m, at(0), key(1), StartLoop)
	m.Reached(at(0), key(2), 1)
	m.Serving(at(0))
	m.Committed(at(2), m.Tick(at(2)).Commit)
	m.Tick(at(30))
	m.Returned(at(30))
	ask(t, m, at(31), key(2), Learned)
	m.Forget(at(32), []Key{key(2)})
	ask(t, m, at(33), key(1), Deny)
	m.Reset(at(34))
	ask(t, m, at(35), key(1), StartLoop)
	ask(t, m, at(36), key(2), Join)
}

func TestKeyJSON(t *testing.T) {
	for _, k := range []Key{key(59), {}, {Call: syscalls.Call{ABI: syscalls.I386, Nr: 1023}, Role: "\x00\"é", Phase: policy.Stop}} {
		data, err := json.Marshal(k)
		var got Key
		if err == nil {
			err = json.Unmarshal(data, &got)
		}
		if err != nil || got != k {
			t.Errorf("%+v became %s and then %+v, %v", k, data, got, err)
		}
	}
	for _, bad := range []string{
		`{}`, `{"abi":"x86_64","call":"nonsense","role":"r","phase":"run"}`, `{"abi":"x86_64","call":"#1024","role":"r","phase":"run"}`,
		fmt.Sprintf(`{"abi":"x86_64","call":"read","role":%q,"phase":"run"}`, strings.Repeat("x", maxRole+1)), `7`,
	} {
		var k Key
		if err := json.Unmarshal([]byte(bad), &k); err == nil {
			t.Errorf("%.60s was read as %+v", bad, k)
		}
	}
}

// What a twin reached that is none is dropped, due or not; that it was attacked stays.
func TestVoid(t *testing.T) {
	for _, attacked := range []bool{false, true} {
		m := New(Defaults(), Saved{})
		ask(t, m, at(0), key(1), StartLoop)
		m.Serving(at(1))
		m.Reached(at(2), key(1), 7)
		m.Reached(at(9), key(2), 7)
		want, state := VerdictFailed, Broken
		if attacked {
			m.Aborted(at(9), oracle.Report{Summary: "overflow"})
			want, state = VerdictAttack, ToProduction
		}
		m.Void(at(9.5), "it is not hardened")
		if got := m.Tick(at(20)); len(got.Commit) != 0 || !got.Return {
			t.Errorf("Tick = %+v", got)
		}
		r, _ := m.Record()
		if r.Verdict != want || m.State() != state || len(r.Dropped) != 2 {
			t.Errorf("attacked %v: %s, %+v", attacked, m.State(), r)
		}
		m = again(t, m)
		m.Returned(at(21))
		if got := m.Tick(at(30)); len(got.Commit) != 0 {
			t.Errorf("Tick = %+v", got)
		}
	}
	New(Defaults(), Saved{}).Void(at(0), "nothing was ever begun")
}
