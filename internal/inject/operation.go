// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/sys/unix"
)

// StopEnvironment names the environment variable that makes the first tracer stop itself (SIGSTOP) at a step, so that a test
// can kill it there. Steps lists what it may hold.
const StopEnvironment = "WHITTLE_INJECT_STOP"

// Steps of an injection, in their order.
var Steps = []string{
	"seized", "saved", "masked", "mapped", "written", "nnp", "installed", "fetched", "unmapped", "restored",
}

func step(name string) {
	if os.Getenv(StopEnvironment) == name {
		_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
	}
}

// operation is one thread's loading of the filter.
type operation struct {
	t    *tracer
	tg   *target
	th   *thread
	sync bool // for all threads of the process

	regs registers // its own
	mask uint64
	abi  syscalls.ABI
	nr   callNumbers
	site uint64
}

// loaded is what became of it.
type loaded struct {
	errno unix.Errno // of seccomp(2); 0 when the filter is in
	nnp   bool       // no_new_privs had to be set
	abi   syscalls.ABI
}

// run the operation in a stopped thread. Whatever happens, the thread has its own registers again when this returns, or is
// gone.
func (o *operation) run() (l loaded, err error) {
	if err := o.begin(); err != nil {
		return l, err
	}
	l.abi = o.abi
	err = o.load(&l)
	if errors.Is(err, errGone) {
		o.t.unaim()
		return l, err
	}
	if back := o.finish(); err == nil {
		err = back
	}
	return l, err
}

// begin reads and writes down what the thread must get back, before anything of it is changed.
func (o *operation) begin() error {
	if err := getRegisters(o.th.tid, &o.regs); err != nil {
		return gone(err)
	}
	var err error
	if o.mask, err = signalMask(o.th.tid); err != nil {
		return gone(err)
	}
	o.abi = abiOf(&o.regs)
	if o.nr, err = numbersOf(o.abi); err != nil {
		return err
	}
	if o.site, err = o.t.sites.find(o.tg, &o.regs, o.abi); err != nil {
		// It has become another program since its memory was opened.
		if again := o.tg.reopen(); again != nil {
			return again
		}
		if o.site, err = o.t.sites.find(o.tg, &o.regs, o.abi); err != nil {
			return err
		}
	}
	leaveRseq(o.th.tid, &o.regs, o.tg.mem)
	o.t.j.begin(o.th, o.tg.stopped)
	if err := o.t.aim(o.th.tid); err != nil {
		o.t.j.set(idle)
		return err
	}
	o.t.j.listener = flag(o.t.req.Listener)
	o.t.j.cured = flag(o.th.cured)
	o.t.j.save(&o.regs, o.mask, o.site, o.abi)
	step("saved")
	return nil
}

func (o *operation) load(l *loaded) error {
	j := o.t.j
	boost(o.th.tid, j)
	if err := setSignalMask(o.th.tid, ^uint64(0)); err != nil {
		return gone(err)
	}
	step("masked")
	blob := len(o.t.program) + 16
	size := uint64((blob + 4095) &^ 4095)
	size = max(size, uint64(os.Getpagesize()))
	j.scratchLen = size
	// Memory of its own, and not the stack: a goroutine's is tiny.
	at, err := o.call(inMmap, o.nr.mmap, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS,
		^uint64(0), 0)
	if err != nil {
		return err
	}
	if at < 0 && at > -4096 {
		return fmt.Errorf("get memory in process %d: %w", o.th.pid, unix.Errno(-at))
	}
	j.scratch = uint64(at)
	step("mapped")
	if err := o.tg.mem.write(fprog(o.abi, uint64(at), o.t.program), uint64(at)); err != nil {
		return err
	}
	step("written")
	got, err := o.install(uint64(at), l)
	if err != nil {
		return err
	}
	if got < 0 || got > 0 && !o.t.req.Listener { // the second is the thread that cannot follow
		l.errno = unix.ESRCH
		if got < 0 {
			l.errno = unix.Errno(-got)
		}
		return nil
	}
	if o.t.req.Listener {
		j.fd = int32(got)
	}
	j.installed = 1
	step("installed")
	if o.t.req.Listener {
		err = o.fetch(int(got))
	}
	step("fetched")
	return err
}

// install the filter, with no_new_privs if the kernel wants it.
func (o *operation) install(at uint64, l *loaded) (int64, error) {
	flags := uint64(0)
	if o.t.req.Listener {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	if o.sync {
		flags |= unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	}
	got, err := o.call(inSeccomp, o.nr.seccomp, unix.SECCOMP_SET_MODE_FILTER, flags, at)
	if err != nil || got != -int64(unix.EACCES) {
		step("nnp")
		return got, err
	}
	if got, err = o.call(inPrctl, o.nr.prctl, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	if got < 0 {
		return got, nil
	}
	l.nnp = true
	o.t.j.nnp = 1
	step("nnp")
	return o.call(inSeccomp, o.nr.seccomp, unix.SECCOMP_SET_MODE_FILTER, flags, at)
}

// fetch the listener, hand it on, and only then close it in the process: at no moment has nobody got it.
func (o *operation) fetch(fd int) error {
	mine, err := unix.PidfdGetfd(o.tg.pidfd, fd, 0)
	if err == nil {
		err = o.t.out.send(message{Kind: kindListener, PID: o.th.pid, TID: o.th.tid}, mine)
		unix.Close(mine)
	}
	if err != nil {
		err = fmt.Errorf("take the listener from process %d: %w", o.th.pid, err)
	} else {
		o.t.j.fetched = 1
	}
	_, closing := o.call(inClose, o.nr.close, uint64(fd))
	if closing == nil {
		o.t.j.fd = -1
	}
	return errors.Join(err, closing)
}

func (o *operation) call(s stage, nr uint32, args ...uint64) (int64, error) {
	o.t.j.set(s)
	return o.th.call(o.regs, o.abi, o.site, nr, args...)
}

// finish takes back the memory, and gives back registers, mask and priority.
func (o *operation) finish() error {
	j := o.t.j
	var errs []error
	if j.scratch != 0 {
		if _, err := o.call(inMunmap, o.nr.munmap, j.scratch, j.scratchLen); err != nil {
			errs = append(errs, err)
		}
		j.scratch = 0
	}
	step("unmapped")
	unboost(o.th.tid, j)
	if o.th.unsettle(&o.regs, o.mask) {
		j.regs, j.cured = o.regs, 0
	}
	j.set(restoring)
	if err := o.th.giveBack(&o.regs, o.mask); err != nil {
		errs = append(errs, err)
	}
	step("restored")
	o.t.unaim()
	return errors.Join(errs...)
}

// fprog is the memory that seccomp(2) is given: a struct sock_fprog and, behind it, the program.
func fprog(abi syscalls.ABI, at uint64, program []byte) []byte {
	head := make([]byte, 16, 16+len(program))
	binary.NativeEndian.PutUint16(head, uint16(len(program)/8))
	if abi == syscalls.I386 {
		binary.NativeEndian.PutUint32(head[4:], uint32(at)+16)
	} else {
		binary.NativeEndian.PutUint64(head[8:], at+16)
	}
	return append(head, program...)
}
