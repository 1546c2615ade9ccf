// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"
	"testing"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestSurvey(t *testing.T) {
	testenv.NeedRoot(t)
	group := newGroup(t)
	exe := compileC(t, "block")
	c := startAs(t, inGroupAttr(t, group), exe, "epoll_wait", "60000")
	c.line(t)
	until(t, "it to sleep", func() bool { return stateOf(c.Process.Pid) == 'S' })
	allowed := func(call syscalls.Call) bool { return call.String() != "epoll_wait" && call.String() != "epoll_pwait" }
	got, err := Survey(Request{Cgroup: group, Program: noMkdir(t)}, allowed)
	if err != nil || !got.Freezer || got.Frozen || !got.Possible || len(got.Processes) != 1 {
		t.Fatalf("got %+v, %v; want one process that can be attached, and a freezer", got, err)
	}
	p := got.Processes[0]
	if p.Comm != "block" || p.ABI != native || !p.Works || p.How != ByTSync || len(p.Threads) != 1 || p.SetsNoNewPrivs {
		t.Errorf("got %+v", p)
	}
	if th := p.Threads[0]; !th.Refused || th.State != "S" || th.Call != "epoll_wait" && th.Call != "epoll_pwait" {
		t.Errorf("got %+v, want it blocked in epoll_wait, which is refused", th)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Errorf("print it: %v", err)
	}
	traced, err := Survey(Request{PIDs: []int{traceOne(t)}}, nil)
	if err != nil || traced.Possible || traced.Processes[0].Works || traced.Processes[0].Problem == "" {
		t.Errorf("traced: got %+v, %v; want it impossible", traced, err)
	}
}

func FuzzProcFiles(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 0 0"))
	f.Add([]byte("Name:\tx\nState:\tS (sleeping)\nTgid:\t12\nSeccomp_filters:\t3\nCapEff:\t000001ffffffffff\n"))
	f.Add([]byte("7ffe3a5f2000-7ffe3a5f4000 r-xp 00000000 00:00 0                          [vdso]\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _ = parseStat(raw)
		parseStatus(raw)
		if base, length := parseVDSO(raw); length > maxVDSO || base+length < base {
			t.Errorf("vdso at %#x, %d bytes", base, length)
		}
	})
}

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("12 (a) b (c) S 3 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 0 0"))
	if want := (stat{state: 'S', ppid: 3, start: 777}); err != nil || s != want {
		t.Errorf("got %+v, %v; want %+v", s, err, want)
	}
}
