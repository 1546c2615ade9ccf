// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/seccomp"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
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
	a := kernel.Allowed{Calls: map[syscalls.ABI]syscalls.Set{}, Checked: map[syscalls.ABI]syscalls.Set{}}
	for abi, calls := range p.ABIs {
		allowed, checked := policy.AllowedSet(p, policy.Selection{}, abi), syscalls.Set{}
		for nr := range calls.Args {
			if allowed.Has(nr) {
				checked.Add(nr)
			}
		}
		a.Calls[abi], a.Checked[abi] = allowed.Minus(checked), checked
	}
	return a
}

type denialKey struct {
	call  syscalls.Call
	errno int32
	comm  string
}

// denials of one run, counted.
type denials struct {
	count map[denialKey]uint64
}

// read until the function that it returns is called; that takes what is still in the channel.
func (d *denials) read(ch <-chan kernel.Denial) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	take := func(n kernel.Denial) {
		k := denialKey{n.Call, n.Errno, workload.Printable(n.Comm, 16)}
		d.count[k] = max(d.count[k], n.Count)
	}
	go func() {
		defer close(done)
		for {
			select {
			case n, ok := <-ch:
				if !ok {
					return
				}
				take(n)
			case <-end:
				for len(ch) > 0 {
					take(<-ch)
				}
				return
			}
		}
	}()
	return func() { close(end); <-done }
}

// exact counts are the kernel's: it tells at powers of two only. Where two programs share a count, what was told stays.
func (d *denials) exact(denied []observe.Denied) {
	total := map[denialKey]uint64{}
	for _, n := range denied {
		total[denialKey{n.Call, n.Errno, ""}] += n.Count
	}
	callers := map[denialKey][]denialKey{}
	for k := range d.count {
		nobody := denialKey{k.call, k.errno, ""}
		callers[nobody] = append(callers[nobody], k)
	}
	for k, n := range total {
		switch by := callers[k]; len(by) {
		case 0:
			d.count[denialKey{k.call, k.errno, "?"}] = n
		case 1:
			d.count[by[0]] = n
		}
	}
}

// report on stderr; nothing when nothing was refused.
func (d *denials) report(a *app) {
	keys := slices.SortedFunc(maps.Keys(d.count), func(x, y denialKey) int {
		return cmp.Or(cmp.Compare(d.count[y], d.count[x]), cmp.Compare(x.call.String(), y.call.String()))
	})
	for _, k := range keys {
		a.say("refused: %s by %s, %s, %d×", k.call, k.comm, unix.ErrnoName(unix.Errno(k.errno)), d.count[k])
	}
}

// underFilter is this program again, which loads the filter and becomes the command. The program travels in a memfd: no
// file that somebody else could write is involved.
func underFilter(path string, args []string, prog []bpf.RawInstruction) (command, error) {
	self, err := os.Executable()
	if err != nil {
		return command{}, fmt.Errorf("find this executable: %w", err)
	}
	fd, err := unix.MemfdCreate("whittle-filter", unix.MFD_CLOEXEC)
	if err != nil {
		return command{}, fmt.Errorf("keep the filter: %w", err)
	}
	f := os.NewFile(uintptr(fd), "filter")
	var buf bytes.Buffer
	for _, ins := range prog {
		if err := binary.Write(&buf, binary.NativeEndian, ins); err != nil {
			panic(err) // fixed-size values into memory
		}
	}
	if _, err := f.WriteAt(buf.Bytes(), 0); err != nil {
		f.Close()
		return command{}, fmt.Errorf("keep the filter: %w", err)
	}
	return command{path: self, argv: append([]string{"whittle", "exec-under", "--", path}, args...), extra: f}, nil
}

// newExecUnder is the other side of underFilter: PATH ARGV0 ARGS… with the filter on descriptor 3.
func newExecUnder(*app) *cobra.Command {
	return &cobra.Command{
		Use:    "exec-under -- PATH ARGV…",
		Short:  "become a command under the filter on descriptor 3 (called by whittle run)",
		Hidden: true,
		Args:   cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			f := os.NewFile(3, "filter")
			raw, err := io.ReadAll(io.NewSectionReader(f, 0, 8*unix.BPF_MAXINSNS+1))
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("read the filter: %w", err)
			}
			if len(raw) == 0 || len(raw)%8 != 0 {
				return errors.New("read the filter: it is not one; whittle run calls this command")
			}
			prog := make([]bpf.RawInstruction, len(raw)/8)
			if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, prog); err != nil {
				return fmt.Errorf("read the filter: %w", err)
			}
			signal.Reset()
			return seccomp.Exec(prog, seccomp.Options{}, args[0], args[1:], os.Environ())
		},
	}
}
