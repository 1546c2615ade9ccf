// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	defaultPatience = 2 * time.Second
	longest         = time.Minute // of a whole injection: a container that forks faster than we follow ends it
	maxProcesses    = 1 << 16
)

// tracer is the process that holds the tracees. All of it runs on one thread, because the kernel knows tracers by thread.
type tracer struct {
	req     Request
	program []byte
	j       *journal
	out     conn
	guard   int // the read end of the guard's pipe; see aim
	parent  int // the guardian
	caller  int // who called Run
	sites   sites

	done     map[identity]bool
	stuck    map[identity]*target
	failed   map[identity]string
	loose    []*thread // seized, and not stopped yet
	passes   int
	frozen   time.Duration
	problems []string
}

var errOwnNamespace = errors.New("inject into this program's own mount namespace: it is the host's, not a container's")

// errOrphan: the guardian has died, so nobody would undo what we leave half done.
var errOrphan = errors.New("the guardian was killed; the rest was not begun")

func newTracer(r Request, j *journal, out conn, guard, parent, caller int) *tracer {
	if r.Patience <= 0 {
		r.Patience = defaultPatience
	}
	return &tracer{
		req: r, program: rawBytes(r.Program), j: j, out: out, guard: guard, parent: parent, caller: caller,
		done: map[identity]bool{}, stuck: map[identity]*target{}, failed: map[identity]string{},
	}
}

func rawBytes(p []bpf.RawInstruction) []byte {
	out := make([]byte, 0, 8*len(p))
	for i := range p {
		out = append(out, (*[8]byte)(unsafe.Pointer(&p[i]))[:]...)
	}
	return out
}

// run the injection: the whole container at once where it can be frozen, then whoever is new, until nobody is.
func (t *tracer) run() error {
	if err := t.check(); err != nil {
		return err
	}
	defer boostSelf()()
	deadline := time.Now().Add(longest)
	if t.req.Cgroup != "" && !t.req.NoFreeze {
		if err := t.freezePass(); err != nil {
			return err
		}
	}
	patience := time.Now().Add(t.req.Patience)
	// A child is in its group's list a moment after it exists, so one empty look is not enough.
	for empty := 0; empty < 2; {
		if time.Now().After(deadline) {
			t.problem("stopped after %v with new processes still appearing", longest)
			break
		}
		found, err := t.pass()
		if err != nil {
			return err
		}
		if len(t.stuck) > 0 && time.Now().Before(patience) {
			nap(time.Millisecond)
			continue
		}
		if found {
			empty = 0
			continue
		}
		empty++
	}
	for _, tg := range t.stuck {
		t.report(Process{PID: tg.pid, Start: tg.start, Threads: len(tg.tasks), Err: "it does not stop: each of its threads " +
			"waits uninterruptibly (for its vfork child, for a disk, or in a frozen group); attach again when it runs"})
		tg.close()
	}
	return nil
}

func (t *tracer) check() error {
	if n := len(t.req.Program); n == 0 || n > unix.BPF_MAXINSNS {
		return fmt.Errorf("inject a filter of %d instructions: there must be 1 to %d", n, unix.BPF_MAXINSNS)
	}
	if len(t.req.Starts) > len(t.req.PIDs) {
		return errors.New("inject: more start times than processes")
	}
	if t.req.MountNS == 0 {
		return nil
	}
	own, err := mountNS(unix.Getpid())
	if err != nil {
		return err
	}
	if own == t.req.MountNS {
		return errOwnNamespace
	}
	return nil
}

// pass over every process that is not done. found says that one had not got the filter: whoever is forked by one that has
// it has it too (the kernel copies and sets filters under one lock), so those do not call for another look.
func (t *tracer) pass() (found bool, err error) {
	t.passes++
	t.j.tick()
	t.letGoLoose()
	pids, err := t.enumerate()
	if err != nil {
		return false, err
	}
	for _, pid := range pids {
		tg, err := t.prepare(pid)
		if err != nil || tg == nil {
			if err != nil {
				return found, err
			}
			continue
		}
		if unix.Getppid() != t.parent {
			tg.close()
			return found, errOrphan
		}
		kept, loaded := t.one(tg)
		found = found || loaded
		if !kept {
			tg.close()
		}
	}
	return found, nil
}

// prepare a process that is ours and not done; nil if it is not.
func (t *tracer) prepare(pid int) (*target, error) {
	s, err := readStat(procPath(pid, "/stat"))
	if err != nil || s.state == 'Z' {
		return nil, nil // it has exited
	}
	id := identity{pid, s.start}
	if t.done[id] || t.failed[id] != "" {
		return nil, nil
	}
	if tg := t.stuck[id]; tg != nil {
		return tg, nil
	}
	if t.req.MountNS != 0 {
		ns, err := mountNS(pid)
		if err != nil {
			return nil, nil // it exits
		}
		if ns != t.req.MountNS {
			t.done[id] = true
			return nil, nil
		}
	}
	tg, err := prepare(pid, t.wanted(pid))
	switch {
	case absent(err):
		return nil, nil
	case err != nil:
		t.fail(id, err)
		return nil, nil
	}
	return tg, nil
}

// wanted is the start time that the caller knows of a process, or 0.
func (t *tracer) wanted(pid int) uint64 {
	if i := slices.Index(t.req.PIDs, pid); i >= 0 && i < len(t.req.Starts) {
		return t.req.Starts[i]
	}
	return 0
}

// one process by itself. kept says that the target is kept for another try; loaded, that the process had not got the filter
// or may not have it now.
func (t *tracer) one(tg *target) (kept, loaded bool) {
	id := identity{tg.pid, tg.start}
	var err error
	for _, task := range tg.tasks[:min(len(tg.tasks), 8)] {
		began := time.Now()
		var th *thread
		if th, err = tg.stop(task.tid, 5*time.Millisecond); err == nil {
			delete(t.stuck, id)
			step("seized")
			return false, t.into(tg, th, began)
		}
		if !errors.Is(err, errStuck) && !errors.Is(err, errGone) {
			break
		}
	}
	switch {
	case errors.Is(err, errStuck):
		t.stuck[id] = tg // its threads are seized, and stop before they run another instruction
		return true, false
	case errors.Is(err, errGone):
		t.letGo(tg) // perhaps other threads are left: the next pass looks again
	default:
		t.letGo(tg)
		t.fail(id, err)
	}
	delete(t.stuck, id)
	return false, true
}

// into a process of which a thread is stopped, and report it.
func (t *tracer) into(tg *target, th *thread, began time.Time) (loaded bool) {
	p := t.load(tg, th)
	t.letGo(tg)
	if p == nil {
		return true
	}
	p.Pause = time.Since(began)
	t.conclude(tg, p)
	return p.How != ByThemself
}

// letGo of a process's threads. One that has not stopped is let go when it does, or at our end.
func (t *tracer) letGo(tg *target) {
	for tid, th := range tg.held {
		if th.seized && !th.stopped {
			t.loose = append(t.loose, th)
		}
		th.release()
		delete(tg.held, tid)
	}
}

func (t *tracer) letGoLoose() {
	t.loose = slices.DeleteFunc(t.loose, func(th *thread) bool {
		switch err := awaitStop(th.tid, 0); {
		case errors.Is(err, errStuck):
			return false
		case err == nil:
			th.stopped = true
			th.release()
		}
		return true
	})
}

func (t *tracer) conclude(tg *target, p *Process) {
	if p == nil { // gone
		return
	}
	t.done[identity{tg.pid, tg.start}] = true
	if s, err := readStatus(procPath(tg.pid, "/status")); err == nil {
		p.Filters = s.filters
	}
	t.report(*p)
}

// load the filter into the process by its stopped thread; nil if the process is gone.
func (t *tracer) load(tg *target, th *thread) *Process {
	p := &Process{PID: tg.pid, Start: tg.start, Threads: len(tg.tasks), Listener: -1}
	if (t.req.Skip || !t.req.Listener) && !tg.uneven && newestIs(th.tid, t.program) {
		p.How, p.ABI = t.alreadyThere(), abiOfTask(th.tid)
		return p
	}
	op := &operation{t: t, tg: tg, th: th, sync: true}
	l, err := op.run()
	p.ABI, p.NoNewPrivs, p.How = l.abi, l.nnp, ByTSync
	switch {
	case errors.Is(err, errGone):
		return nil
	case err != nil:
		p.Err = err.Error()
	case l.errno == unix.EBUSY && newestIs(th.tid, t.program):
		p.How = t.alreadyThere()
	case l.errno == unix.EBUSY:
		p.Err = "another supervisor listens to this process already, and there can be one"
	case l.errno == unix.ESRCH:
		t.perThread(tg, p)
	case l.errno != 0:
		p.Err = fmt.Sprintf("the kernel refuses the filter: %v", l.errno)
	}
	if p.Err != "" {
		p.How = ""
	}
	return p
}

// alreadyThere names how a process got the filter before us: it had it when we came, or it was forked meanwhile.
func (t *tracer) alreadyThere() string {
	if t.passes <= 1 && len(t.done) == 0 {
		return skippedMark + "it has this filter already"
	}
	return ByThemself
}

// perThread loads the filter into each thread, where their chains have grown apart and none can follow another's. A thread
// that is made meanwhile has its maker's filters, with or without ours.
func (t *tracer) perThread(tg *target, p *Process) {
	p.How = PerThread
	seen := map[int]bool{}
	for range 100 {
		found := false
		if err := tg.look(); err != nil {
			return // it has exited
		}
		for _, task := range tg.tasks {
			if seen[task.tid] {
				continue
			}
			seen[task.tid], found = true, true
			if err := t.oneThread(tg, task.tid, p); err != nil && !errors.Is(err, errGone) {
				p.Err = fmt.Sprintf("thread %d: %v", task.tid, err)
				return
			}
		}
		if !found {
			return
		}
	}
	p.Err = "its threads make threads faster than they can be followed"
}

func (t *tracer) oneThread(tg *target, tid int, p *Process) error {
	th, err := tg.stop(tid, t.req.Patience)
	if err != nil {
		return err
	}
	if !t.req.Listener && newestIs(tid, t.program) {
		return nil
	}
	op := &operation{t: t, tg: tg, th: th}
	l, err := op.run()
	p.NoNewPrivs = p.NoNewPrivs || l.nnp
	switch {
	case err != nil:
		return err
	case l.errno == unix.EBUSY && newestIs(tid, t.program):
		return nil
	case l.errno != 0:
		return l.errno
	}
	return nil
}

// aim the guard at a thread. The guard is a pipe: its write end is only in this thread's own file table, its read end is
// also held by the guardian and by the caller of Run. When this thread is killed, the kernel closes its files before it
// lets its tracees go; that closes the last write end, and for that the read end's owner gets the signal that was chosen
// for it: SIGSTOP. So a thread whose registers are not its own stops instead of running on with them.
func (t *tracer) aim(tid int) error {
	type owner struct{ kind, pid int32 } // struct f_owner_ex
	const byThread = 0                   // F_OWNER_TID
	o := owner{byThread, int32(tid)}
	if _, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(t.guard), unix.F_SETOWN_EX, uintptr(unsafe.Pointer(&o))); errno != 0 {
		return fmt.Errorf("guard thread %d: %w", tid, errno)
	}
	return nil
}

// unaim the guard from a thread that has its own registers again.
func (t *tracer) unaim() {
	t.j.set(armed)
	_ = t.aim(0) // nobody: cannot fail
	t.j.set(idle)
}

func (t *tracer) report(p Process) {
	if p.Err != "" {
		t.failed[identity{p.PID, p.Start}] = p.Err
	}
	// The caller may have died: finish all the same.
	if err := t.out.send(message{Kind: kindProcess, Process: &p}); err != nil && !errors.Is(err, unix.EPIPE) {
		t.problem("report process %d: %v", p.PID, err)
	}
}

func (t *tracer) fail(id identity, err error) {
	t.report(Process{PID: id.pid, Start: id.start, Err: err.Error()})
}

func (t *tracer) problem(format string, args ...any) {
	if len(t.problems) < 100 {
		t.problems = append(t.problems, fmt.Sprintf(format, args...))
	}
}
