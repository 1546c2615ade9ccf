// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/testbed/intruder"
)

// poison what is learned: somebody is in Redis already, and makes the calls that he will need later.
func (d *demo) poison(ctx context.Context) error {
	pid, err := d.pidOf(ctx, "redis")
	if err != nil {
		return err
	}
	fmt.Fprintln(d.out, "somebody is in redis already, and has it make the calls that he will need when nothing is learned any more:")
	for _, p := range poison {
		if err := d.intrude(pid, p.from, p.call, false); err != nil {
			return err
		}
	}
	return nil
}

// intrusion is a call that an intruder has a service make.
type intrusion struct {
	from intruder.Origin
	call string
}

// poison is made while Redis is learned, with arguments that the kernel turns down.
var poison = []intrusion{{intruder.Libc, "unshare"}, {intruder.Libc, "keyctl"}, {intruder.Anonymous, "inotify_init1"}}

// intrude has a process make a call, and checks that it was refused, or was not.
func (d *demo) intrude(pid int, from intruder.Origin, name string, refused bool) error {
	call, err := intruder.Named(name)
	if err != nil {
		return err
	}
	all, err := intruder.Make(pid, from, call)
	if err != nil {
		return err
	}
	answer := unix.Errno(-all[0].Value)
	fmt.Fprintf(d.out, "redis-server[%d]: %s, by an instruction in %s: %s\n", pid, name, memory[from], result(all[0].Value))
	if is := answer == unix.EPERM || answer == unix.ENOSYS; is != refused {
		return fmt.Errorf("the kernel answered %s in process %d with %v: refused is %v, and must be %v", name, pid, answer, is, refused)
	}
	return nil
}

var memory = map[intruder.Origin]string{
	intruder.Libc: "the C library", intruder.Anonymous: "memory of no file", intruder.Stack: "the stack",
}

func result(value int64) string {
	if value < 0 {
		return unix.ErrnoName(unix.Errno(-value))
	}
	return strconv.FormatInt(value, 10)
}

// quarantined shows what learning did not believe.
func (d *demo) quarantined(ctx context.Context) error {
	err := until(ctx, 10*time.Second, "what the intruder did is in quarantine", func() bool {
		events, err := d.events(ctx, "quarantined", "redis: ")
		return err == nil && !slices.ContainsFunc(poison, func(p intrusion) bool {
			return !slices.ContainsFunc(events, func(e api.Event) bool { return e.Call == p.call })
		})
	})
	if err != nil {
		return err
	}
	return d.show(ctx, "event", "list", "--kind", "quarantined")
}

// rare is an operation that nobody saw while its service was learned.
type rare struct {
	s     *service
	typed string
	do    func(context.Context) error // until it has worked
}

// unlearned operations happen, and so do calls that nobody but an intruder makes.
func (d *demo) unlearned(ctx context.Context) error {
	d.say("What was never learned happens: first somebody in redis tries a fork, then the services themselves")
	redis, nginx, postgres := d.services[0], d.services[1], d.services[2]
	pid, err := d.pidOf(ctx, redis.name)
	if err != nil {
		return err
	}
	for _, from := range []intruder.Origin{intruder.Anonymous, intruder.Stack} {
		if err := d.intrude(pid, from, "clone", true); err != nil {
			return err
		}
	}
	for _, p := range poison {
		if err := d.intrude(pid, p.from, p.call, true); err != nil {
			return err
		}
	}
	calls := []string{"clone"}
	for _, p := range poison {
		calls = append(calls, p.call)
	}
	if err := d.inJournal(ctx, redis.name, calls); err != nil {
		return err
	}
	if err := d.show(ctx, "event", "list", redis.name, "--kind", "refused", "--limit", strconv.Itoa(1+len(calls))); err != nil {
		return err
	}
	for _, r := range []rare{
		{redis, "redis-cli bgsave", d.save},
		{postgres, "psql -c 'vacuum full pgbench_tellers'", func(ctx context.Context) error {
			_, err := postgres.psql(ctx, "vacuum full pgbench_tellers")
			return err
		}},
		{nginx, "kill -9 WORKER", d.killWorker},
	} {
		if err := d.allow(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", r.typed, err)
		}
	}
	return nil
}

// allow a rare operation: it works, the panel was asked, and refused nothing.
func (d *demo) allow(ctx context.Context, r rare) error {
	err := until(ctx, 20*time.Second, r.s.name+" serves, and is in no reload", func() bool {
		status, err := d.client.Status(ctx)
		c, ok := containerOf(status, r.s.name)
		return err == nil && ok && c.Supervision != nil && c.Supervision.Phase == policy.Run
	})
	if err != nil {
		return err
	}
	last, err := d.client.Events(ctx, api.EventQuery{Limit: 1})
	if err != nil || len(last) == 0 {
		return fmt.Errorf("read the journal: %w", err)
	}
	fmt.Fprintf(d.out, "\n$ %s\n", r.typed)
	if err := r.do(ctx); err != nil {
		return err
	}
	var events []api.Event
	err = until(ctx, 10*time.Second, "the panel was asked", func() bool {
		seen := len(events) // the journal gets them one by one
		events, err = d.client.Events(ctx, api.EventQuery{After: last[0].ID, Kind: judge.KindJudged, Limit: 100, Oldest: true})
		return err == nil && len(events) == seen && slices.ContainsFunc(events, func(e api.Event) bool { return strings.HasPrefix(e.Text, r.s.name+": ") })
	})
	if err != nil {
		return err
	}
	return d.printVotes(ctx, events)
}

// printVotes of the panel: a line for each call with who spoke for it, and the reasons for the riskiest. A refusal is an error.
func (d *demo) printVotes(ctx context.Context, events []api.Event) error {
	w := tabwriter.NewWriter(d.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "EVENT\tNEVER LEARNED\tTHE PANEL\tPOINTS\tFROM")
	var riskiest int64
	needed := 0
	for _, e := range events {
		cases, err := judge.ReadCases(bytes.NewReader(e.Data))
		if err != nil || len(cases) != 1 {
			return fmt.Errorf("event %d has %d cases: %w", e.ID, len(cases), err)
		}
		decision := cases[0].Decision
		if decision.Verdict < judge.Once {
			return fmt.Errorf("not let through: %s", e.Text)
		}
		if decision.Needed > needed {
			riskiest, needed = e.ID, decision.Needed
		}
		var from []string
		for _, v := range decision.Votes {
			if v.Stance == judge.For {
				from = append(from, v.Judge)
			}
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d of %d\t%s\n", e.ID, e.Call, verdicts[decision.Verdict], decision.Given, decision.Needed,
			strings.Join(from, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return d.show(ctx, "event", "show", strconv.FormatInt(riskiest, 10))
}

var verdicts = map[judge.Verdict]string{judge.Once: "allows it once", judge.Learn: "allows and learns"}

// save in the background, which forks.
func (d *demo) save(ctx context.Context) error {
	redis := d.services[0]
	before, err := redis.cli(ctx, "lastsave")
	if err != nil {
		return err
	}
	if _, err := redis.cli(ctx, "bgsave"); err != nil {
		return err
	}
	return until(ctx, 10*time.Second, "Redis has saved", func() bool {
		now, err := redis.cli(ctx, "lastsave")
		return err == nil && now != before
	})
}

// killWorker of nginx, whose master makes another. Requests that the worker has in hand would be errors of the load, and
// nobody's fault but ours.
func (d *demo) killWorker(ctx context.Context) error {
	nginx := d.services[1]
	nginx.stopLoad()
	defer nginx.startLoad(ctx)
	master, err := d.pidOf(ctx, nginx.name)
	if err != nil {
		return err
	}
	worker, err := childOf(master, "worker process")
	if err != nil {
		return err
	}
	if err := unix.Kill(worker, unix.SIGKILL); err != nil {
		return err
	}
	return until(ctx, 10*time.Second, "nginx has two workers again", func() bool {
		now, err := childrenOf(master, "worker process")
		return err == nil && len(now) == 2 && !slices.Contains(now, worker) && nginx.answers(ctx, nginx) == nil
	})
}
