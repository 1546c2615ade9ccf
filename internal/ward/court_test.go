// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"os"
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

// witness says the same of every call, and counts how often it was asked.
type witness struct {
	origin judge.Origin
	needed judge.Import
	asked  int
	slow   bool // it has to read first
}

func (w *witness) Both(int, uint64, syscalls.Call) (judge.Origin, judge.Import) {
	w.asked++
	return w.origin, w.needed
}

// Quick, unless it is slow.
func (w *witness) Quick(int, uint64, syscalls.Call) (o judge.Origin, i judge.Import, ok bool) {
	if w.slow {
		return o, i, false
	}
	w.asked++
	return w.origin, w.needed, true
}

// parent is a witness who knows that the sender started whom it signals.
type parent struct{ witness }

func (*parent) Target(int, syscalls.Call, [6]uint64) judge.Target { return judge.Descendant }

// everyone needed every call.
func everyone(syscalls.Call) judge.Fleet { return judge.Fleet{Replicas: 4, Needed: 4} }

var (
	honest   = witness{origin: judge.Origin{Class: judge.File, Path: "/lib/libc.so.6"}, needed: judge.Import{Carrier: judge.Imports, Object: "/usr/sbin/nginx", Symbol: "f"}}
	injected = witness{origin: judge.Origin{Class: judge.Anonymous}, needed: honest.needed}
)

// court with one witness; parked is what was parked.
func court(w *witness, parks bool, parked *[]judge.Case) *Court {
	return &Court{Evidence: w, Fleet: everyone, Park: func(_ supervise.Held, _ int32, c judge.Case) bool {
		*parked = append(*parked, c)
		return parks
	}}
}

func TestPanelDecides(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	master := kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}
	for _, tt := range []struct {
		name    string
		call    string
		witness witness
		mode    Mode
		want    bool
		verdict judge.Verdict
	}{
		{"what the program imports", "umask", honest, Enforce, true, judge.Learn},
		{"in shadow too", "umask", honest, Shadow, true, judge.Learn},
		{"injected code", "umask", injected, Enforce, false, judge.Refuse},
		{"what never passes", "unshare", honest, Enforce, false, judge.Refuse},
		{"what never passes, in shadow", "unshare", honest, Shadow, true, judge.Refuse},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var parked []judge.Case
			w := New(&fake{who: master, known: true, stage: observe.StageRun}, 1, 1, orders(t, exe), tt.mode, time.Now)
			w.Consults(court(&tt.witness, false, &parked))
			w.valid = func(supervise.Held) bool { return true }
			v := w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, tt.call)})
			if v.Allow != tt.want || v.Later {
				t.Errorf("Judge = %+v: %+v", v, w.Tally.Snapshot())
			}
			heard := w.Docket.Due()
			if len(heard) != 1 || heard[0].Decision.Verdict != tt.verdict || heard[0].Question.Call != number(t, tt.call) {
				t.Fatalf("the docket has %+v", heard)
			}
			_, would, denied := w.Counts()
			if refused := tt.verdict == judge.Refuse; would+denied != b2u(refused) || refused && (denied == 1) != (tt.mode == Enforce) {
				t.Errorf("would deny %d, denied %d", would, denied)
			}
			if lines := w.Tally.Snapshot(); len(lines) != 1 || tt.verdict == judge.Refuse && !strings.Contains(lines[0].Why, "the panel") {
				t.Errorf("it tells %+v", lines)
			}
		})
	}
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// What was read about a caller that does not wait any more may be about another.
func TestPanelIsNotBelievedAboutTheGone(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	var parked []judge.Case
	w := New(&fake{who: kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageRun}, 1, 1,
		orders(t, exe), Enforce, time.Now)
	witness := honest
	w.Consults(court(&witness, true, &parked))
	if v := w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, "umask")}); v.Allow || v.Later {
		t.Errorf("Judge = %+v", v)
	}
	if heard := w.Docket.Due(); len(heard) != 0 || len(parked) != 0 {
		t.Errorf("heard %+v, parked %+v", heard, parked)
	}
}

// A flood of one refused call costs the panel nothing, and what was withheld is never its business.
func TestPanelIsSpared(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	now := time.Unix(1000, 0)
	var parked []judge.Case
	w := New(&fake{who: kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageRun}, 1, 1,
		orders(t, exe), Enforce, func() time.Time { return now })
	witness := injected
	w.Consults(court(&witness, false, &parked))
	w.valid = func(supervise.Held) bool { return true }
	held := supervise.Held{TID: os.Getpid(), Call: number(t, "umask"), IP: 4096}
	for range 1000 {
		if v := w.Judge(held); v.Allow {
			t.Fatal("allowed")
		}
	}
	if witness.asked != 1 {
		t.Errorf("the panel looked %d times at one refused call", witness.asked)
	}
	held.IP++ // from elsewhere: what is true of one place says nothing of another
	w.Judge(held)
	now = now.Add(refusalHolds)
	w.Judge(held)
	if witness.asked != 3 {
		t.Errorf("looked %d times, want 3", witness.asked)
	}
	if heard := w.Docket.Due(); len(heard) != 1 {
		t.Errorf("told %d times", len(heard))
	}

	o := *w.Orders()
	taken, err := policy.Withdraw(o.Policy, []syscalls.Call{held.Call}, "somebody", "")
	if err != nil {
		t.Fatal(err)
	}
	w.SetOrders(OrdersOf(taken, 2, plan.Default(), nil))
	witness = honest
	if v := w.Judge(held); v.Allow || witness.asked != 0 {
		t.Errorf("a withheld call: %+v, and the panel was asked %d times", v, witness.asked)
	}
}

// All calls of one function of the C library come from one place: what is true of one says nothing of another's arguments.
func TestRefusedArgumentsAreNotAnothers(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	now := time.Unix(1000, 0)
	var parked []judge.Case
	w := New(&fake{who: kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageRun}, 1, 1,
		orders(t, exe), Enforce, func() time.Time { return now })
	witness := honest
	w.Consults(court(&witness, false, &parked))
	w.valid = func(supervise.Held) bool { return true }
	held := supervise.Held{TID: os.Getpid(), Call: number(t, "socket"), IP: 4096, Args: [6]uint64{38, 5}} // AF_ALG
	if v := w.Judge(held); v.Allow {
		t.Fatal("a socket to the kernel's ciphers is allowed")
	}
	held.Args = [6]uint64{1, 1} // AF_UNIX
	if v := w.Judge(held); !v.Allow {
		t.Errorf("a socket between processes: %+v", w.Tally.Snapshot())
	}
}

// What has to be read is read aside: the worker goes on, and the call is answered when it was read.
func TestReadingHoldsNoWorker(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	for _, tt := range []struct {
		name    string
		witness witness
		gone    bool // before it was read
		want    supervise.Verdict
		denied  uint64
	}{
		{"what the program imports", honest, false, supervise.Verdict{Allow: true}, 0},
		{"injected code", injected, false, supervise.Verdict{Errno: 1}, 1},
		{"nobody waits any more", honest, true, supervise.Verdict{Errno: 1}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := New(&fake{who: kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageRun}, 1, 1,
				orders(t, exe), Enforce, time.Now)
			var jobs []func()
			var settled []supervise.Verdict
			tt.witness.slow = true
			var parked []judge.Case
			c := court(&tt.witness, true, &parked)
			c.Aside = func(job func()) bool {
				if len(jobs) == 1 {
					return false
				}
				jobs = append(jobs, job)
				return true
			}
			c.Waits = func(supervise.Held) bool { return !tt.gone }
			c.Settle = func(_ supervise.Held, v supervise.Verdict) error { settled = append(settled, v); return nil }
			w.Consults(c)
			held := supervise.Held{TID: os.Getpid(), Call: number(t, "umask")}
			if v := w.Judge(held); !v.Later || tt.witness.asked != 0 || len(w.Tally.Snapshot()) != 0 {
				t.Fatalf("Judge = %+v, and it was asked %d times", v, tt.witness.asked)
			}
			if v := w.Judge(held); v.Allow || v.Later {
				t.Errorf("one more than there is room for: %+v", v)
			}
			jobs[0]()
			if len(settled) != 1 || settled[0] != tt.want {
				t.Errorf("settled %+v, want %+v", settled, tt.want)
			}
			if _, _, denied := w.Counts(); denied != tt.denied+1 {
				t.Errorf("denied %d, want %d", denied, tt.denied+1)
			}
		})
	}
}

// Whom a signal goes to takes reading, which holds no worker; the panel hears of it, and of no other call.
func TestTargetsAreRead(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	for _, tt := range []struct {
		call   string
		target judge.Target
		aside  int
	}{{"kill", judge.Descendant, 1}, {"umask", judge.NoTarget, 0}} {
		w := New(&fake{who: kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageRun}, 1, 1,
			orders(t, exe), Enforce, time.Now)
		aside := 0
		var parked []judge.Case
		c := court(nil, false, &parked)
		c.Evidence = &parent{honest}
		c.Aside = func(job func()) bool { aside++; job(); return true }
		c.Waits = func(supervise.Held) bool { return true }
		c.Settle = func(supervise.Held, supervise.Verdict) error { return nil }
		w.Consults(c)
		w.valid = c.Waits
		w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, tt.call)})
		heard := w.Docket.Due()
		if len(heard) != 1 || heard[0].Evidence.Target != tt.target || aside != tt.aside {
			t.Errorf("%s: %d times aside, and the docket has %+v", tt.call, aside, heard)
		}
	}
}

// A person is asked about what had to be read, too, and it is not answered twice.
func TestAskedAfterReading(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	w := New(&fake{who: kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageRun}, 1, 1,
		orders(t, exe), Enforce, time.Now)
	witness := witness{origin: honest.origin, needed: judge.Import{Carrier: judge.None, Objects: 1}, slow: true}
	var parked []judge.Case
	c := court(&witness, true, &parked)
	c.Fleet = func(syscalls.Call) judge.Fleet { return judge.Fleet{} }
	c.Aside = func(job func()) bool { job(); return true }
	c.Waits = func(supervise.Held) bool { return true }
	c.Settle = func(supervise.Held, supervise.Verdict) error { t.Error("settled"); return nil }
	w.Consults(c)
	if v := w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, "umask")}); !v.Later || len(parked) != 1 {
		t.Errorf("Judge = %+v, parked %+v", v, parked)
	}
}

// What injected code wants, or a person's shell, is not what a replica of the service needs.
func TestOnlyTheServiceSpeaksForItsReplicas(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	for _, tt := range []struct {
		name    string
		witness witness
		lane    observe.Lane
		want    int
	}{
		{"the service", honest, observe.LaneService, 1},
		{"injected code", injected, observe.LaneService, 0},
		{"a shell", honest, observe.LaneExec, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := New(&fake{who: kernel.Who{Lane: tt.lane, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageRun}, 1, 1,
				orders(t, exe), Enforce, time.Now)
			var parked []judge.Case
			noted := 0
			c := court(&tt.witness, false, &parked)
			c.Fleet = func(syscalls.Call) judge.Fleet { noted++; return judge.Fleet{} }
			w.Consults(c)
			w.valid = func(supervise.Held) bool { return true }
			w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, "setuid")})
			if noted != tt.want {
				t.Errorf("noted %d times, want %d", noted, tt.want)
			}
		})
	}
}

// Shadow refuses nothing, also what is never read to its end.
func TestReadingInShadow(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	w := New(&fake{who: kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageRun}, 1, 1,
		orders(t, exe), Shadow, time.Now)
	witness := injected
	witness.slow = true
	c := court(&witness, true, nil)
	room := true
	c.Aside = func(func()) bool { return room }
	w.Consults(c)
	held := supervise.Held{TID: os.Getpid(), Call: number(t, "umask")}
	if v := w.Judge(held); !v.Later || !v.Allow {
		t.Errorf("while it is read: %+v", v)
	}
	room = false
	if v := w.Judge(held); v.Later || !v.Allow {
		t.Errorf("when there is no room: %+v", v)
	}
}
