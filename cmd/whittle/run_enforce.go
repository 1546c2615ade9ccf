// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"io"
	"os"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// enforce a policy on a command.
func (a *app) enforce(_ context.Context, args []string, p policy.Policy, f runFlags) error {
	if err := enforceable(p); err != nil {
		return err
	}
	path, _, err := workloadOf(args)
	if err != nil {
		return err
	}
	p = policy.Normal(p)
	addExecve(p)
	rules, err := filter.FromPolicy(p, policy.Selection{})
	if err != nil {
		return err
	}
	prog, err := filter.Compile(rules)
	if err != nil {
		return err
	}
	c, err := underFilter(path, args, prog)
	if err != nil {
		return err
	}
	defer c.extra.Close()
	c.mountNS = f.mountNS
	if os.Geteuid() != 0 {
		a.say("refused calls are not reported: that needs root")
		ended, err := a.runIn(nil, c)
		return cmp.Or(err, ended.err())
	}
	return a.enforceWatched(c, p)
}

// enforceWatched also reports what the filter refuses.
func (a *app) enforceWatched(c command, p policy.Policy) error {
	group, err := newCgroup()
	if err != nil {
		return err
	}
	defer group.remove()
	denials := &denials{count: map[denialKey]uint64{}}
	if observer, err := kernel.Open(logger(io.Discard, false)); err != nil {
		a.say("refused calls are not reported: %v", err)
	} else {
		defer observer.Close()
		watching := watch(context.Background(), observer)
		defer watching.stop()
		id, err := observer.Watch(kernel.Target{CgroupID: group.id}, allowedBy(p))
		if err != nil {
			a.say("refused calls are not reported: %v", err)
		}
		reading := denials.read(observer.Denials())
		defer func() {
			watching.stop() // hands on what the kernel has told
			reading()
			if err == nil {
				trace, _ := observer.Finish(id, true) // an empty one adds nothing
				denials.exact(trace.Denied)
			}
			denials.report(a)
		}()
	}
	ended, err := a.runIn(group, c)
	if err != nil {
		return err
	}
	return ended.err()
}

// allowedBy a policy, for the observer.
func allowedBy(p policy.Policy) kernel.Allowed {
	a := kernel.Allowed{Calls: map[syscalls.ABI]syscalls.Set{}, Checked: map[syscalls.Call][]kernel.Check{}}
	for abi, calls := range p.ABIs {
		allowed := policy.AllowedSet(p, policy.Selection{}, abi)
		for nr, rules := range calls.Args {
			if !allowed.Has(nr) {
				continue
			}
			allowed.Remove(nr)
			call := syscalls.Call{ABI: abi, Nr: nr}
			for _, r := range rules {
				a.Checked[call] = append(a.Checked[call], kernel.Check(r))
			}
		}
		a.Calls[abi] = allowed
	}
	return a
}
