// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/sys/unix"
)

// Report is what Survey found.
type Report struct {
	Freezer   bool       `json:"freezer"` // the container can be stopped as a whole
	Frozen    bool       `json:"frozen"`  // it is stopped already
	Processes []Prospect `json:"processes"`
	Possible  bool       `json:"possible"` // it would work for each of them
	Problems  []string   `json:"problems,omitempty"`
}

// Prospect is one process as Survey found it.
type Prospect struct {
	PID        int          `json:"pid"`
	Start      uint64       `json:"start"`
	Comm       string       `json:"comm"` // as the process calls itself: hostile
	ABI        syscalls.ABI `json:"abi"`
	Threads    []Thread     `json:"threads"`
	NoNewPrivs bool         `json:"no_new_privs"`
	Tracer     int          `json:"tracer,omitempty"`
	Works      bool         `json:"works"`
	How        string       `json:"how,omitempty"`     // as Process.How
	Problem    string       `json:"problem,omitempty"` // what stands against it, or has to be known
	// SetsNoNewPrivs says that the kernel will want no_new_privs set for it.
	SetsNoNewPrivs bool `json:"sets_no_new_privs,omitempty"`
}

// Thread of a Prospect.
type Thread struct {
	TID     int    `json:"tid"`
	State   string `json:"state"` // one letter, as in /proc/PID/stat
	Filters int    `json:"filters"`
	// Call is what it is blocked in, "" when it runs.
	Call string `json:"call,omitempty"`
	// Refused says that the program would not let Call restart after the stop.
	Refused bool `json:"refused,omitempty"`
}

// Survey says what Run would find and do. It only reads /proc and stops nothing. allowed says whether the program lets a
// call through at once.
func Survey(r Request, allowed func(syscalls.Call) bool) (Report, error) {
	var report Report
	if r.Cgroup != "" {
		if raw, err := readFile(filepath.Join(r.Cgroup, "cgroup.freeze"), 64); err == nil {
			report.Freezer, report.Frozen = true, strings.TrimSpace(string(raw)) == "1" || frozenStill(r.Cgroup)
		}
	}
	own, err := mountNS(unix.Getpid())
	if err != nil {
		return report, err
	}
	if r.MountNS != 0 && r.MountNS == own {
		return report, errOwnNamespace
	}
	pids, err := members(&r)
	if err != nil {
		return report, err
	}
	report.Possible = true
	for _, pid := range pids {
		if pid == unix.Getpid() {
			continue
		}
		p, err := prospect(&r, pid, allowed)
		switch {
		case absent(err):
		case errors.Is(err, errReused):
			report.Problems, report.Possible = append(report.Problems, err.Error()), false
		case err != nil:
			return report, err
		case p != nil:
			report.Processes = append(report.Processes, *p)
			report.Possible = report.Possible && p.Works
		}
	}
	return report, nil
}

// prospect of one process; nil when it is not meant.
func prospect(r *Request, pid int, allowed func(syscalls.Call) bool) (*Prospect, error) {
	s, err := readStat(procPath(pid, "/stat"))
	if err != nil {
		return nil, err
	}
	if s.state == 'Z' || s.state == 'X' {
		return nil, errGone
	}
	if i := slices.Index(r.PIDs, pid); i >= 0 && i < len(r.Starts) && r.Starts[i] != 0 && r.Starts[i] != s.start {
		return nil, fmt.Errorf("process %d is not the one that was meant: %w", pid, errReused)
	}
	if r.MountNS != 0 {
		if ns, err := mountNS(pid); err != nil || ns != r.MountNS {
			return nil, err
		}
	}
	st, err := readStatus(procPath(pid, "/status"))
	if err != nil {
		return nil, err
	}
	p := &Prospect{PID: pid, Start: s.start, Comm: st.name, ABI: abiOfImage(pid), NoNewPrivs: st.noNewPrivs, Tracer: st.tracer,
		SetsNoNewPrivs: !st.noNewPrivs && !st.admin}
	tids, err := numbersIn(procPath(pid, "/task"), maxThreads)
	if err != nil {
		return nil, err
	}
	for _, tid := range tids {
		if th, ok := p.thread(tid, allowed); ok {
			p.Threads = append(p.Threads, th)
		}
	}
	p.judge()
	return p, nil
}

func (p *Prospect) thread(tid int, allowed func(syscalls.Call) bool) (th Thread, ok bool) {
	st, err := readStatus(taskPath(p.PID, tid, "/status"))
	if err != nil || st.state == 'Z' || st.state == 'X' || st.state == 0 {
		return th, false
	}
	p.Tracer = max(p.Tracer, st.tracer)
	th = Thread{TID: tid, State: string(st.state), Filters: st.filters}
	raw, err := readFile(taskPath(p.PID, tid, "/syscall"), 4096)
	if err != nil {
		return th, true
	}
	field, _, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
	nr, err := strconv.ParseUint(field, 10, 32)
	if err != nil {
		return th, true // "running", or -1: in no call
	}
	call := syscalls.Call{ABI: p.ABI, Nr: uint32(nr)}
	th.Call = call.String()
	// The kernel restarts some calls under the name of restart_syscall, which a filter of ours always allows.
	th.Refused = allowed != nil && !allowed(call)
	return th, true
}

// judge whether an injection would work, and how.
func (p *Prospect) judge() {
	runnable, uneven, refused := 0, false, ""
	for _, th := range p.Threads {
		if th.State != "D" {
			runnable++
		}
		uneven = uneven || th.Filters != p.Threads[0].Filters
		if th.Refused {
			refused = th.Call
		}
	}
	switch {
	case p.Tracer != 0:
		p.Problem = fmt.Sprintf("process %d traces it already", p.Tracer)
		return
	case runnable == 0:
		p.Problem = "each of its threads waits uninterruptibly: it can be attached when it runs"
		return
	}
	p.Works, p.How = true, ByTSync
	if uneven {
		p.Problem = "its threads have different numbers of filters: if one's are not a part of another's, each is loaded by itself"
	}
	if refused != "" {
		p.Problem = "a thread is blocked in " + refused + ", which the filter does not let restart"
	}
}

// abiOfImage by the header of the program that runs; the native one if it cannot be read.
func abiOfImage(pid int) syscalls.ABI {
	fd, err := unix.Open(procPath(pid, "/exe"), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return native
	}
	defer unix.Close(fd)
	var head [20]byte
	if n, err := unix.Pread(fd, head[:], 0); err != nil || n < len(head) {
		return native
	}
	const class32, machine386 = 1, 3 // ELFCLASS32, EM_386
	if head[4] == class32 && head[18] == machine386 {
		return syscalls.I386
	}
	return native
}
