// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

var _ api.JudgeDesk = (*Agent)(nil)

// What may wait for a person. A call beyond is refused at once: somebody inside must not be able to fill the list, nor a list
// hide what matters.
const (
	maxQuestions        = 256 // of all containers
	maxQuestionsOf      = 16  // of one container
	maxThreadsOfOneCall = 32  // that wait with the same question
)

// A question that nobody has answered is refused without asking for so many times as long as it waited: what nobody
// looks at must neither stop a service again and again, nor fill the journal.
const unansweredHolds = 10

// grantPatience is how long the threads that wait for a person's answer also wait for the policy to be stored.
const grantPatience = 10 * time.Second

// desk is where held calls wait for a person. Its lock is never held while anything is waited for.
type desk struct {
	limit time.Duration // how long one waits; 0: nobody is asked
	now   func() time.Time
	tell  func(kind string, q *question, text string)

	mu      sync.Mutex
	last    int64
	waiting map[int64]*question
	vain    map[deskKey]time.Time          // until when questions are not asked that nobody answered
	names   map[supervise.Container]string // of those that were renamed
}

// question of a container, with all the threads that wait for its answer.
type question struct {
	api.Waiting
	of         supervise.Container
	errno      int32 // of a refusal
	supervisor *supervise.Supervisor
	held       []supervise.Held
	timer      *time.Timer
}

// deskKey makes two held calls the same question: a person sees the first only, and answers all of them.
type deskKey struct {
	of    supervise.Container
	call  syscalls.Call
	args  [6]uint64 // as far as they tell one use of the call from another
	phase policy.Phase
	role  string
	class judge.Class
}

func keyOf(of supervise.Container, c judge.Case) deskKey {
	asked := c.Question
	return deskKey{of, asked.Call, asked.Telling(), asked.Phase, asked.Role, c.Evidence.Origin.Class}
}

// park a held call. It is called by the container's judge, so it must not block.
func (d *desk) park(of api.Waiting, s *supervise.Supervisor, h supervise.Held, errno int32, c judge.Case) bool {
	if d.limit <= 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := keyOf(h.Container, c)
	if until, asked := d.vain[key]; asked && d.now().Before(until) {
		return false
	}
	mine := 0
	for _, q := range d.waiting {
		if q.of != h.Container {
			continue
		}
		mine++
		if keyOf(q.of, q.Case) == key {
			if len(q.held) >= maxThreadsOfOneCall {
				q.forget() // a thread that signals interrupt comes again with each
			}
			if len(q.held) >= maxThreadsOfOneCall {
				return false
			}
			q.held = append(q.held, h)
			return true
		}
	}
	if mine >= maxQuestionsOf || len(d.waiting) >= maxQuestions {
		return false
	}
	d.last++
	q := &question{Waiting: of, of: h.Container, errno: errno, supervisor: s, held: []supervise.Held{h}}
	q.ID, q.Case, q.Since, q.PID = d.last, c, d.now(), h.TID
	q.Until = q.Since.Add(d.limit)
	if name, renamed := d.names[q.of]; renamed {
		q.Name = name
	}
	if d.waiting == nil {
		d.waiting = map[int64]*question{}
	}
	d.waiting[q.ID] = q
	q.timer = time.AfterFunc(d.limit, func() { d.expire(q.ID) })
	q.Comm = commOf(h.TID)
	go d.tell(kindAsked, q, fmt.Sprintf("%s: %s waits for a person until %s: whittle judge allow %d, or: whittle judge deny %d",
		q.Name, c.Question.Call, q.Until.Format(time.TimeOnly), q.ID, q.ID))
	return true
}

// take a question off the list: whoever takes it answers it.
func (d *desk) take(id int64) *question {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.waiting[id]
	delete(d.waiting, id)
	if q != nil {
		q.timer.Stop()
	}
	return q
}

// forget the threads that do not wait any more.
func (q *question) forget() {
	q.held = slices.DeleteFunc(q.held, func(h supervise.Held) bool { return !q.supervisor.Waits(h) })
}

// inVain notes that nobody has answered a question.
func (d *desk) inVain(q *question) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	maps.DeleteFunc(d.vain, func(_ deskKey, until time.Time) bool { return !now.Before(until) })
	if d.vain == nil {
		d.vain = map[deskKey]time.Time{}
	}
	// There are never more than maxQuestions times unansweredHolds.
	d.vain[keyOf(q.of, q.Case)] = now.Add(unansweredHolds * d.limit)
}

func (d *desk) expire(id int64) {
	if q := d.take(id); q != nil {
		d.inVain(q)
		q.answer(false)
		d.tell(kindAsked, q, fmt.Sprintf("%s: %s: nobody answered for %s, so it was refused, and is without asking for %s",
			q.Name, q.Case.Question.Call, d.limit, unansweredHolds*d.limit))
	}
}

// drop the questions of a container that is no longer supervised. Its supervisor has refused what waited.
func (d *desk) drop(of supervise.Container) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, of)
	for id, q := range d.waiting {
		if q.of == of {
			q.timer.Stop()
			delete(d.waiting, id)
		}
	}
	maps.DeleteFunc(d.vain, func(k deskKey, _ time.Time) bool { return k.of == of })
}

// rename a container: its questions are found by the name that people see, also those that it asks from now on.
func (d *desk) rename(of supervise.Container, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = map[supervise.Container]string{}
	}
	d.names[of] = name
	for _, q := range d.waiting {
		if q.of == of {
			q.Name = name
		}
	}
}

// answer all threads of a question that was taken; how many took it.
func (q *question) answer(allow bool) (taken int) {
	for _, h := range q.held {
		if q.supervisor.Settle(h, supervise.Verdict{Allow: allow, Errno: q.errno}) == nil {
			taken++
		}
	}
	return taken
}

// list in the order in which they came. Those whose callers have all gone are taken off.
func (d *desk) list() []api.Waiting {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []api.Waiting{}
	for _, id := range slices.Sorted(maps.Keys(d.waiting)) {
		q := d.waiting[id]
		if q.forget(); len(q.held) == 0 {
			q.timer.Stop()
			delete(d.waiting, id)
			continue
		}
		w := q.Waiting
		w.Count = len(q.held)
		list = append(list, w)
	}
	return list
}

// Waiting calls, oldest first.
func (a *Agent) Waiting(context.Context) ([]api.Waiting, error) { return a.desk.list(), nil }

// Settle a question on a person's word, and with Always the policy.
func (a *Agent) Settle(ctx context.Context, by api.Peer, j api.Judgement) (out api.Judged, err error) {
	q := a.desk.take(j.ID)
	if q == nil {
		return out, api.NotWaiting(j.ID)
	}
	out.Waiting = q.Waiting
	out.Waiting.Count = len(q.held)
	asked := q.Case.Question
	if j.Always {
		// First, so that the same call that comes while this one is answered is not asked about again.
		// Its timer is stopped: a disk that hangs must not keep the threads for ever.
		ctx, cancel := context.WithTimeout(ctx, grantPatience)
		defer cancel()
		grant, err := a.Grant(ctx, by, api.GrantRequest{
			Workload: q.Workload, Call: asked.Call.ABI.String() + ":" + asked.Call.String(), Allow: j.Allow,
			Phases: []policy.Phase{asked.Phase}, By: j.By, Why: j.Why,
		})
		if err != nil {
			out.Notes = append(out.Notes, "the policy is as it was: "+err.Error())
		} else {
			out.Grant = &grant
		}
	}
	if out.Answered = q.answer(j.Allow); out.Answered == 0 {
		out.Notes = append(out.Notes, "its caller is gone: nobody took the answer")
	}
	verb := "refused"
	if j.Allow {
		verb = "allowed"
	}
	a.desk.tell(kindAsked, q, fmt.Sprintf("%s: %s %s by %s: %s", q.Name, asked.Call, verb, cmpOr(j.By, "root"), cmpOr(j.Why, "no reason given")))
	return out, nil
}

// tellAsked journals what became of a question.
func (a *Agent) tellAsked(kind string, q *question, text string) {
	_ = a.ask(context.Background(), func(m *model) error {
		m.workloadEvent(kind, q.Workload, text)
		e := &m.events[len(m.events)-1]
		e.Container, e.Call = q.Name, q.Case.Question.Call.String()
		e.Data = caseData(q.Case)
		return nil
	})
}
