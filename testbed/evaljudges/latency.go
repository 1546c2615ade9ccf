// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/corpus"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/origin"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
)

// asker is the program that makes held calls, through the C library as services do.
//
//go:embed asker.py
var asker string

// latency of held calls as their caller sees it, in microseconds.
type latency struct {
	Plan    spread // the call is in the policy: the plan's answer, without the panel
	Panel   spread // the panel decides, by evidence that was read before
	First   spread // the panel decides about a call for the first time; the files were read before
	Cold    spread // the panel decides, and reads and parses every file anew for every question
	Alone   spread // another container's calls that the plan answers, when nothing else happens
	Beside  spread // the same, while one container asks with nothing read before, without a pause
	Blocked spread // the same, while the evidence of one container takes 100 ms each time
	// Repeats of Panel beyond Plan, at the median, some seconds apart: the machine's speed is not always the same.
	Repeats []float64
}

// beyond the held call itself: what the panel adds to the median.
func (l *latency) beyond(s spread) float64 { return s.Median - l.Plan.Median }

// spread of measurements.
type spread struct {
	N           int
	Median, P99 float64
}

func us(v float64) string { return fmt.Sprintf("%.1f µs", v) }

func spreadOf(values []float64) (s spread) {
	if len(values) == 0 {
		return s
	}
	values = slices.Clone(values)
	slices.Sort(values)
	return spread{len(values), values[len(values)/2], values[len(values)*99/100]}
}

// fixed is a kernel that knows one process.
type fixed struct{}

const askerRole = "/usr/bin/python3"

func (fixed) Who(kernel.ID, int) (kernel.Who, bool) {
	return kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: askerRole}}, true
}
func (fixed) Stage(kernel.ID) (observe.Stage, bool) { return observe.StageRun, true }

// cold reads everything anew for every question.
type cold struct{ home origin.Home }

func (c cold) Both(tid int, ip uint64, call syscalls.Call) (judge.Origin, judge.Import) {
	return origin.NewGatherer(0).In(c.home).Both(tid, ip, call)
}

// stuck takes its time.
type stuck struct{ ward.Gatherer }

func (s stuck) Both(tid int, ip uint64, call syscalls.Call) (judge.Origin, judge.Import) {
	time.Sleep(100 * time.Millisecond)
	return s.Gatherer.Both(tid, ip, call)
}

// process is an asker whose calls are held.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startAsker and give its listener to a supervisor.
func startAsker(s *supervise.Supervisor, id supervise.Container, evidence func(pid int) (ward.Gatherer, error), o *ward.Orders) (p *process, err error) {
	p = &process{cmd: exec.Command(askerRole, append([]string{"-c", asker}, heldNumbers()...)...)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.end()
		}
	}()
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the asker does not start: %w", err)
	}
	fd, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return nil, err
	}
	pid := p.cmd.Process.Pid
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	listener, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, err
	}
	g, err := evidence(pid)
	if err != nil {
		return nil, errors.Join(err, unix.Close(listener))
	}
	w := ward.New(fixed{}, 1, pid, o, ward.Enforce, time.Now)
	w.Consults(&ward.Court{
		Evidence: g, Fleet: func(syscalls.Call) judge.Fleet { return judge.Fleet{} },
		Park:  func(supervise.Held, int32, judge.Case) bool { return false },
		Aside: func(f func()) bool { go f(); return true }, Waits: s.Waits, Settle: s.Settle,
	})
	return p, s.Add(id, listener, w.Judge)
}

// firstTimes are calls that do nothing when their arguments are wrong, and that no policy here has.
var firstTimes = strings.Fields(`fchmod fchown fsync fdatasync flock ftruncate getdents64 lseek dup fstatfs fadvise64 readahead
	sync_file_range fallocate getsockname getpeername shutdown getsockopt inotify_rm_watch timerfd_settime timerfd_gettime epoll_ctl
	getpriority getpgid getsid sched_getparam sched_getscheduler capget getresuid getresgid times sysinfo fgetxattr flistxattr
	fremovexattr copy_file_range splice tee sched_getaffinity getcpu getgroups getitimer`)

// heldNumbers are what the asker's filter holds.
func heldNumbers() []string {
	out := []string{fmt.Sprint(unix.SYS_UMASK), fmt.Sprint(unix.SYS_GETPPID)}
	abi, _ := syscalls.Native(runtime.GOARCH)
	for _, name := range firstTimes {
		if nr, ok := syscalls.Number(abi, name); ok {
			out = append(out, fmt.Sprint(nr))
		}
	}
	return out
}

func (p *process) end() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// time both calls, so many times: that for the panel, and that for the plan. It is done in batches, of which the quietest counts:
// what else the machine does only ever adds.
func (p *process) time(n int) (panel, plan spread, err error) {
	const batches = 20
	for range batches {
		if _, err := fmt.Fprintf(p.in, "time %d\n", n/batches); err != nil {
			return panel, plan, err
		}
		a, err := p.numbers()
		if err != nil {
			return panel, plan, err
		}
		b, err := p.numbers()
		if err != nil {
			return panel, plan, err
		}
		if one := spreadOf(a); panel.N == 0 || one.Median < panel.Median {
			panel, plan = one, spreadOf(b)
		}
	}
	return panel, plan, nil
}

// each of the other calls once.
func (p *process) each() (spread, error) {
	if _, err := fmt.Fprintln(p.in, "each"); err != nil {
		return spread{}, err
	}
	us, err := p.numbers()
	return spreadOf(us), err
}

// numbers of a line, from ns to µs.
func (p *process) numbers() (out []float64, err error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, err
	}
	for field := range strings.FieldsSeq(line) {
		ns, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, ns/1000)
	}
	return out, nil
}

// policyOfAsker allows getppid, and not umask.
func policyOfAsker() (p policy.Policy, err error) {
	abi, ok := syscalls.Native(runtime.GOARCH)
	if !ok {
		return p, errors.New("the calls of this machine are not known")
	}
	var set syscalls.Set
	for _, name := range []string{"getppid", "read", "write", "futex", "mmap", "munmap", "brk", "recvfrom", "sendto"} {
		if nr, ok := syscalls.Number(abi, name); ok {
			set.Add(nr)
		}
	}
	phases := map[policy.Phase]syscalls.Set{policy.Boot: set, policy.Run: set}
	p.Workload.Image, p.Workload.Command = "asker", []string{askerRole}
	p.ABIs = map[syscalls.ABI]*policy.Calls{abi: {
		Phases: phases, Roles: map[string]policy.RoleCalls{policy.RoleKey(askerRole, 0): {Phases: phases}},
	}}
	return p, nil
}

// rounds of each measurement.
const rounds = 4000

// repeats of the one that a bar is about. That in the middle counts.
const repeats = 7

// measureLatency of held calls, with the real supervisor, ward, evidence, rules and panel in this process.
func measureLatency(ctx context.Context) (*latency, error) {
	shipped, err := corpus.Shipped()
	if err != nil {
		return nil, err
	}
	p, err := policyOfAsker()
	if err != nil {
		return nil, err
	}
	orders := ward.OrdersOf(p, 1, plan.Default(), shipped.Rules())
	s, err := supervise.New(nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	var l latency
	m := meter{s, orders, 0}
	for _, step := range []func(*latency) error{m.evidence, m.others} {
		if err := step(&l); err != nil {
			return nil, err
		}
	}
	return &l, nil
}

type meter struct {
	s      *supervise.Supervisor
	orders *ward.Orders
	last   supervise.Container
}

func (m *meter) start(evidence func(pid int) (ward.Gatherer, error)) (*process, error) {
	m.last++
	return startAsker(m.s, m.last, evidence, m.orders)
}

func cached(pid int) (ward.Gatherer, error) {
	home, err := origin.HomeOf(pid)
	if err != nil {
		return nil, err
	}
	g := origin.NewGatherer(0).In(home)
	return g, g.Warm(pid)
}

func uncached(pid int) (ward.Gatherer, error) {
	home, err := origin.HomeOf(pid)
	return cold{home}, err
}

func slow(pid int) (ward.Gatherer, error) {
	g, err := cached(pid)
	return stuck{g}, err
}

// pin all threads of a process to some CPUs, as far as they are still there.
func pin(pid int, set *unix.CPUSet) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.SchedSetaffinity(tid, set)
		}
	}
}

// evidence that was read before, of a call that was not asked about before, and that must be read. Who asks and who answers are on
// one CPU: what waking another one takes is the machine's.
func (m *meter) evidence(l *latency) (err error) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := range runtime.NumCPU() {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	pin(os.Getpid(), &one)
	defer pin(os.Getpid(), &all)
	measure := func(gather func(int) (ward.Gatherer, error), f func(*process) error) {
		p, start := m.start(gather)
		if start != nil {
			err = errors.Join(err, start)
			return
		}
		defer p.end()
		pin(p.cmd.Process.Pid, &one)
		err = errors.Join(err, f(p))
	}
	measure(cached, func(p *process) (err error) { l.First, err = p.each(); return err })
	measure(cached, func(p *process) (err error) {
		type pair struct{ panel, plan spread }
		var all []pair
		for range repeats {
			var one pair
			if one.panel, one.plan, err = p.time(rounds); err != nil {
				return err
			}
			all = append(all, one)
			l.Repeats = append(l.Repeats, one.panel.Median-one.plan.Median)
			time.Sleep(2 * time.Second)
		}
		slices.SortFunc(all, func(a, b pair) int { return cmp.Compare(a.panel.Median-a.plan.Median, b.panel.Median-b.plan.Median) })
		l.Panel, l.Plan = all[repeats/2].panel, all[repeats/2].plan
		return nil
	})
	measure(uncached, func(p *process) (err error) { l.Cold, _, err = p.time(50); return err })
	return err
}

// others are not delayed by what is read for one.
func (m *meter) others(l *latency) error {
	p, err := m.start(cached)
	if err != nil {
		return err
	}
	defer p.end()
	for _, kind := range []struct {
		beside func(int) (ward.Gatherer, error)
		to     *spread
	}{{nil, &l.Alone}, {slow, &l.Blocked}, {uncached, &l.Beside}} {
		var other *process
		if kind.beside != nil {
			if other, err = m.start(kind.beside); err != nil {
				return err
			}
			if _, err = fmt.Fprintln(other.in, "flood"); err != nil {
				other.end()
				return err
			}
			time.Sleep(100 * time.Millisecond)
		}
		_, plan, err := p.time(rounds)
		if other != nil {
			other.end()
		}
		if err != nil {
			return err
		}
		*kind.to = plan
	}
	return nil
}

func (l *latency) report(r *report) {
	r.say(`A program of the distribution (Python: a main program and its libraries) makes held calls through the C library and times them: umask,
which its policy does not have and the panel allows for its import, and by turns getppid, which the policy has. The
supervisor, the ward, the evidence, the rules of the whole corpus and the panel are the agent's own, in this process. The machine
has %d CPUs and is not idle: the times are what a caller sees, scheduling included, in the quietest of twenty batches. In the first
four lines who asks and who answers are on one CPU.`, runtime.NumCPU())
	r.head("", "median", "99th percentile", "calls")
	line := func(name string, s spread) { r.row(name, us(s.Median), us(s.P99), fmt.Sprint(s.N)) }
	line("a held call that the plan answers", l.Plan)
	line("a held call that the panel decides, evidence cached", l.Panel)
	line("the first question about each of many calls: files read ahead, as at every start", l.First)
	line("every file read and parsed anew for every question, as if nothing had been read ahead", l.Cold)
	line("a held call of another container, alone", l.Alone)
	line("the same, while one container asks without a pause, and every file is read anew", l.Beside)
	line("the same, while the evidence of one container takes 100 ms each time", l.Blocked)
	r.say("\nBeyond a held call, at the median: %s cached, %s the first time, %s with nothing read ahead.",
		us(l.beyond(l.Panel)), us(l.beyond(l.First)), us(l.beyond(l.Cold)))
	if len(l.Repeats) > 0 {
		r.say("The first of these was measured %d times, some seconds apart: between %s and %s. The machine's speed varies as much.",
			len(l.Repeats), us(slices.Min(l.Repeats)), us(slices.Max(l.Repeats)))
	}
}
