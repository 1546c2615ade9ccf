// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
	"golang.org/x/sys/unix"
)

// refusalKey is what refusals are counted by: a container that asks a million times is one line.
type refusalKey struct {
	lane  observe.Lane
	call  syscalls.Call
	errno int32
}

type refusal struct {
	api.Refusal
	told uint64 // the count that was journaled last
}

// readDenials hands them to the owner until ctx is done.
func (a *Agent) readDenials(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d, ok := <-a.Observer.Denials():
			if !ok {
				return
			}
			if a.ask(ctx, func(m *model) error { m.denied(d); return nil }) != nil {
				return
			}
		}
	}
}

// denied counts a refusal, and journals the first and each tenfold of it.
func (m *model) denied(d kernel.Denial) {
	c := m.observed[d.Container]
	if c == nil {
		return // its last words came after its end, which the tally has counted
	}
	k := refusalKey{d.Lane, d.Call, d.Errno}
	r := c.counts[k]
	if r == nil {
		r = &refusal{Refusal: api.Refusal{
			ABI: d.Call.ABI.String(), Call: d.Call.String(), Lane: d.Lane.String(), Errno: d.Errno,
		}}
		c.counts[k] = r
	}
	r.Comm, r.PID, r.Last, r.Count = workload.Printable(d.Comm, 16), d.PID, d.Time, max(r.Count, d.Count)
	if r.told == 0 || r.Count >= 10*r.told {
		r.told = r.Count
		m.refused(c, r)
	}
}

// refused journals a count, for people and for programs.
func (m *model) refused(c *tracked, r *refusal) {
	m.event(kindRefused, c, r.text(c.view.Name, c.view.WorkloadName, c.view.Mode == api.Enforced || c.isSealed))
	e := &m.events[len(m.events)-1]
	e.Call = r.Call
	if data, err := json.Marshal(r.Refusal); err == nil { // strings and numbers only
		e.Data = data
	}
}

func (r *refusal) text(container, workload string, ours bool) string {
	s := fmt.Sprintf("%s: refused: %s by %s[%d] lane %s, %s", container, r.Call, r.Comm, r.PID, r.Lane, errnoName(r.Errno))
	if r.Count > 1 {
		s += fmt.Sprintf(", %d times", r.Count)
	}
	if !ours {
		return s + "; another filter refused it, not Whittle's: the engine's profile decides that when the container starts"
	}
	return s + "; to allow it from the next start on: " + fix(workload, r.Call, "")
}

// exact counts are the kernel's: what it tells while they happen comes at powers of two only, and may come too late.
func (c *tracked) exact(denied []observe.Denied) {
	for _, d := range denied {
		k := refusalKey{d.Lane, d.Call, d.Errno}
		r := c.counts[k]
		if r == nil {
			r = &refusal{Refusal: api.Refusal{
				ABI: d.Call.ABI.String(), Call: d.Call.String(), Lane: d.Lane.String(), Errno: d.Errno, Comm: "?",
			}}
			c.counts[k] = r
		}
		r.Count = max(r.Count, d.Count)
	}
}

// tally journals the counts of a container that has ended, where they grew since they were told.
func (m *model) tally(c *tracked) {
	for _, r := range c.counts {
		if r.Count > r.told {
			r.told = r.Count
			m.refused(c, r)
		}
	}
}

func (c *tracked) refusals() (all []api.Refusal) {
	for _, r := range c.counts {
		all = append(all, r.Refusal)
	}
	slices.SortFunc(all, func(a, b api.Refusal) int { return b.Last.Compare(a.Last) })
	return all
}

func errnoName(errno int32) string {
	if name := unix.ErrnoName(unix.Errno(errno)); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", errno)
}
