// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

var unreadable = witness{origin: judge.Origin{Why: "its memory cannot be read"}}

// borrowed is code of the image that nothing says the program needs.
var borrowed = witness{origin: honest.origin, needed: judge.Import{Carrier: judge.None, Objects: 3}}

// looped is a court whose loop answers what it is told to, and notes what it was asked about.
func looped(w *witness, parks bool, asked *[]string) *Court {
	return &Court{
		Evidence: w, Fleet: func(syscalls.Call) judge.Fleet { return judge.Fleet{} },
		Park:      func(supervise.Held, int32, judge.Case) bool { return false },
		HasOracle: func() bool { return true },
		Loop: func(h supervise.Held, errno int32, c judge.Case) (bool, string) {
			*asked = append(*asked, h.Call.String())
			if errno == 0 || c.Question.Call != h.Call {
				panic("a refusal without an errno, or another's case")
			}
			return parks, "it was tried"
		},
	}
}

func TestLoopIsAsked(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	service := kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}
	fromOutside := kernel.Who{Lane: observe.LaneExec, Role: observe.Role{Exe: exe}}
	for _, tt := range []struct {
		name    string
		call    string
		who     kernel.Who
		witness witness
		mode    Mode
		parks   bool
		asked   bool
		later   bool
		allow   bool
		why     string
	}{
		{name: "what the panel refuses", call: "personality", who: service, witness: borrowed, parks: true, asked: true, later: true},
		{name: "what was tried before", call: "personality", who: service, witness: borrowed, asked: true, why: "no time loop: it was tried"},
		{name: "in shadow", call: "personality", who: service, witness: borrowed, mode: Shadow, parks: true, allow: true},
		{name: "what the panel vouches for", call: "umask", who: service, witness: honest, parks: true, allow: true},
		{name: "injected code", call: "umask", who: service, witness: injected, parks: true, why: "no time loop: injected code"},
		{name: "what is never learned", call: "unshare", who: service, witness: honest, parks: true, why: "no time loop: it changes what a process sees"},
		{name: "what starts a program", call: "execveat", who: service, witness: borrowed, parks: true, asked: true, later: true},
		{name: "injected code that starts one", call: "execveat", who: service, witness: injected, parks: true, why: "no time loop: injected code"},
		{name: "what was started from outside", call: "personality", who: fromOutside, witness: borrowed, parks: true, why: "only calls of the service"},
		{name: "unreadable code", call: "personality", who: service, witness: unreadable, parks: true, asked: true, later: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked []string
			w := New(&fake{who: tt.who, known: true, stage: observe.StageRun}, 1, 1, orders(t, exe), tt.mode, time.Now)
			w.Consults(looped(&tt.witness, tt.parks, &asked))
			w.valid = func(supervise.Held) bool { return true }
			v := w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, tt.call)})
			if v.Allow != tt.allow || v.Later != tt.later || (len(asked) == 1) != tt.asked {
				t.Errorf("Judge = %+v, the loop was asked about %q: %+v", v, asked, w.Tally.Snapshot())
			}
			if v.Later && v.Errno == 0 {
				t.Error("a parked call without the errno of its refusal")
			}
			lines := w.Tally.Snapshot()
			if tt.later != (len(lines) == 0) {
				t.Fatalf("it tells %+v", lines)
			}
			if tt.why != "" && !strings.Contains(lines[0].Why, tt.why) {
				t.Errorf("the refusal says %q, want %q in it", lines[0].Why, tt.why)
			}
		})
	}
}

// Where a workload has no oracle its refusals say nothing of loops, whatever the reason; once it gets one they do.
func TestNothingIsSaidOfLoopsWithoutAnOracle(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	for _, tt := range []struct {
		call    string
		witness witness
	}{
		{"personality", borrowed}, // that a loop would be asked about
		{"umask", injected},       // and what it would never be
		{"unshare", honest},
	} {
		t.Run(tt.call, func(t *testing.T) {
			var asked []string
			oracle, now := false, time.Unix(1000, 0)
			court := looped(&tt.witness, false, &asked)
			court.HasOracle = func() bool { return oracle }
			who := kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}
			w := New(&fake{who: who, known: true, stage: observe.StageRun}, 1, 1, orders(t, exe), Enforce, func() time.Time { return now })
			w.Consults(court)
			w.valid = func(supervise.Held) bool { return true }
			for _, oracle = range []bool{false, true} {
				now = now.Add(2 * refusalHolds)
				v := w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, tt.call)})
				lines := w.Tally.Snapshot()
				if v.Allow || v.Later || len(lines) == 0 || !oracle && len(asked) > 0 {
					t.Fatalf("oracle %t: Judge = %+v, the loop was asked about %q, it tells %+v", oracle, v, asked, lines)
				}
				said := slices.ContainsFunc(lines, func(l supervise.Line) bool { return strings.Contains(l.Why, "loop") })
				if said != oracle {
					t.Errorf("oracle %t: it tells %+v", oracle, lines)
				}
			}
		})
	}
}

// A parked call that is given up on is counted and told as every other refusal.
func TestLoopGivesUp(t *testing.T) {
	w := New(&fake{known: true}, 1, 1, orders(t, "/x"), Enforce, time.Now)
	c := judge.Case{Question: judge.Question{Lane: observe.LaneService, Phase: policy.Run, Role: "/x:0", Refusal: "not in the policy"}}
	w.Refused(supervise.Held{TID: os.Getpid(), Call: number(t, "personality")}, policy.EPERM, c, "the oracle did not make it")
	lines := w.Tally.Snapshot()
	if _, _, denied := w.Counts(); denied != 1 || len(lines) != 1 || lines[0].Errno != policy.EPERM || lines[0].Lane != "service" ||
		!strings.Contains(lines[0].Why, "did not make it") {
		t.Errorf("%d denied, %+v", denied, lines)
	}
}

// An oracle goes by its workload's policy, and is asked about the rest but for what no loop learns.
func TestOracle(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	o := OrdersOf(policy.Policy{Complete: true, ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: {}}}, 1, plan.Default(), nil)
	for _, tt := range []struct {
		name    string
		call    string
		lane    observe.Lane
		orders  *Orders
		witness witness
		reached bool
		allow   bool
		why     string
	}{
		{name: "in the policy", call: "execve", lane: observe.LaneService, orders: orders(t, exe), witness: honest, allow: true},
		{name: "new", call: "personality", lane: observe.LaneService, orders: o, witness: borrowed, reached: true, allow: true},
		{name: "that the panel would vouch for", call: "umask", lane: observe.LaneService, orders: o, witness: honest, reached: true, allow: true},
		{name: "a program's start", call: "execve", lane: observe.LaneService, orders: o, witness: borrowed, reached: true, allow: true},
		{name: "a program's start by injected code", call: "execve", lane: observe.LaneService, orders: o, witness: injected, why: "in the oracle: injected code"},
		{name: "what no oracle teaches", call: "unshare", lane: observe.LaneService, orders: o, witness: honest, why: "in the oracle: it changes what"},
		{name: "injected", call: "umask", lane: observe.LaneService, orders: o, witness: injected, why: "in the oracle: injected code"},
		{name: "unreadable", call: "umask", lane: observe.LaneService, orders: o, witness: unreadable, why: "not known"},
		{name: "from outside", call: "ptrace", lane: observe.LaneExec, orders: o, witness: borrowed, why: "in the oracle: it reaches"},
		{name: "the runtime's", call: "ptrace", lane: observe.LaneRuntime, orders: o, witness: injected, allow: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reached := 0
			who := kernel.Who{Lane: tt.lane, Role: observe.Role{Exe: exe}}
			w := New(&fake{who: who, known: true, stage: observe.StageRun}, 1, 1, tt.orders, Enforce, time.Now)
			w.Consults(&Court{
				Evidence: &tt.witness, Fleet: func(syscalls.Call) judge.Fleet { return judge.Fleet{} },
				Reach: func(supervise.Held, judge.Case) (bool, string) { reached++; return true, "new" },
			})
			w.valid = func(supervise.Held) bool { return true }
			v := w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, tt.call)})
			if v.Allow != tt.allow || (reached == 1) != tt.reached {
				t.Errorf("Judge = %+v, reached %d: %+v", v, reached, w.Tally.Snapshot())
			}
			if lines := w.Tally.Snapshot(); tt.why != "" && (len(lines) != 1 || !strings.Contains(lines[0].Why, tt.why)) {
				t.Errorf("it tells %+v", lines)
			}
			if heard := w.Docket.Due(); len(heard) != 0 {
				t.Errorf("the panel speaks: %+v", heard)
			}
		})
	}
}
