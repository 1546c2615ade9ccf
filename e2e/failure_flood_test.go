// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
)

// TestTenThousandHeldCalls of one container at once: all are answered, another container's calls meanwhile, and the agent
// does not grow with them.
func TestTenThousandHeldCalls(t *testing.T) {
	ms := newMasters(t)
	other, s := ms.start(t, "other"), ms.start(t, "hoarder")
	other.supervised()
	s.supervised()
	const calls = 10_000
	s.does("threads", calls)
	before := ms.d.rss()
	ms.d.pause(t)
	s.does("begin", unix.SYS_PERSONALITY, 1)
	eventually(t, "all are held", func() (bool, string) { n := s.held(); return n == calls, fmt.Sprint(n) })
	ms.d.signal(t, unix.SIGCONT)
	for s.through() < calls { // each poll of a listener looks through all that wait: it takes a while
		other.allowed(unix.SYS_PERSONALITY, 10)
		other.refused(1)
	}
	if m := s.does("join"); m.good != calls || m.failed != 0 {
		t.Errorf("of %d allowed calls: %+v; %s", calls, m, s.threads())
	}
	grown := ms.d.rss() - before
	t.Logf("the agent's memory: %d KB before, %d KB more after", before, grown)
	if grown > 16<<10 {
		t.Errorf("the agent has grown by %d KB", grown)
	}
	s.works(1)
	if !s.alive() || !other.alive() {
		t.Error("a container is dead")
	}
}

// TestHoarderDiesWithItsCalls: a container that is killed while its calls are held is gone, with its record.
func TestHoarderDiesWithItsCalls(t *testing.T) {
	ms := newMasters(t)
	s := ms.start(t, "hoarder")
	s.supervised()
	s.does("threads", 100)
	ms.d.pause(t)
	s.does("begin", unix.SYS_PERSONALITY, 1)
	eventually(t, "all are held", func() (bool, string) { n := s.held(); return n == 100, fmt.Sprint(n) })
	if err := unix.Kill(s.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.awaitEnd() // it does not wait for the agent
	ms.d.signal(t, unix.SIGCONT)
	ms.d.forgotten()
	if n := len(listenersOf(ms.d.cmd.Process.Pid)); n != 0 {
		t.Errorf("the agent has %d listeners of it", n)
	}
	eventually(t, "the holder has let go of it", func() (bool, string) {
		fds := listenersOf(ms.d.holder())
		return len(fds) == 0, fmt.Sprint(fds)
	})
	next := ms.start(t, "next")
	next.works(1)
	next.quit()
	ms.d.forgotten()
	if left := ms.left(); len(left) > 0 {
		t.Errorf("records are left: %+v", left)
	}
}

// TestFloodOfRefusedCalls from one container: another container is served, the journal stays short, the agent small.
func TestFloodOfRefusedCalls(t *testing.T) {
	ms := newMasters(t)
	other, s := ms.start(t, "other"), ms.start(t, "flooder")
	other.supervised()
	// Each phase has a line of its own, and the boot goes on for a while after the first connection.
	ms.d.supervised(s.id, api.ModeEnforce, policy.Run)
	const threads, each = 16, 20_000
	s.does("threads", threads)
	before, events, began := ms.d.rss(), len(ms.d.events()), time.Now()
	s.does("begin", forbidden, each)
	served := 0
	for s.through() < threads {
		other.allowed(unix.SYS_PERSONALITY, 1)
		served++
	}
	took := time.Since(began)
	m := s.does("join")
	if m.failed != threads*each || m.good != 0 {
		t.Errorf("of %d forbidden calls: %+v", threads*each, m)
	}
	t.Logf("%.0f refused calls a second; meanwhile %d calls of another container, each in %v on average; the agent grew by %d KB",
		float64(m.failed)/took.Seconds(), served, (took / time.Duration(max(served, 1))).Round(time.Microsecond), ms.d.rss()-before)
	if served < 10 {
		t.Errorf("the other container made %d calls in %v", served, took)
	}
	if grown := ms.d.rss() - before; grown > 16<<10 {
		t.Errorf("the agent has grown by %d KB", grown)
	}
	c := s.supervised()
	eventually(t, "every refusal is counted", func() (bool, string) {
		c = s.supervised()
		return c.Supervision.Denied >= threads*each, fmt.Sprintf("%+v", c.Supervision)
	})
	if rows := len(ms.d.events()) - events; rows > 20 {
		t.Errorf("%d rows in the journal: %s", rows, ms.d.whittle("event", "list"))
	}
	if n := len(c.Supervision.Refusals); n != 1 {
		t.Errorf("status has %d lines for one kind of refusal: %+v", n, c.Supervision.Refusals)
	}
	other.works(1)
}

// through is how many of the servant's threads have made their calls.
func (s *servant) through() (n int) {
	s.t.Helper()
	s.send("done")
	line, err := s.answer()
	if err == nil {
		_, err = fmt.Sscanf(line, "done %d", &n)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// rss of the agent in KB.
func (d *daemon) rss() (kb int) {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		d.t.Fatal(err)
	}
	return kb
}
