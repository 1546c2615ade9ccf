// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

const (
	// An epoch is a second long in a container's first minute and grows with its age, so that there are few hundred
	// in a day.
	shortEpoch = time.Second
	epochShare = 60
	// A reload is marked as over after this time; the learner cuts it by novelty.
	reloadWindow = 10 * time.Second
	// Between two peeks passes this many times the CPU time that one takes, so that many containers make epochs longer and
	// not the CPU busier.
	peekRest = 20
)

// Run peeks at the maps about once a second, begins epochs and reads denials, until ctx is done.
func (o *Observer) Run(ctx context.Context) error {
	read := make(chan error, 1)
	go func() { read <- o.readDenials() }()
	ticker := time.NewTicker(shortEpoch)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(o.events.Flush(), <-read)
		case err := <-read:
			return err
		case <-ticker.C:
			if err := o.turn(); err != nil {
				return errors.Join(err, o.events.Flush(), <-read)
			}
		}
	}
}

// turn begins the epochs that are due. The peek before it puts what was counted into the epochs that end.
func (o *Observer) turn() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := bootTime()
	if now < o.rested {
		return nil
	}
	var due []*container
	for _, c := range o.containers {
		if c.follow {
			o.endReload(c, now)
			continue
		}
		age, last := now-c.added, c.epochs[len(c.epochs)-1].at
		if !c.watch && now-last >= max(shortEpoch, age/epochShare)-shortEpoch/4 {
			due = append(due, c)
		}
	}
	if len(due) > 0 {
		spent, err := cpuTime(o.peek)
		if err != nil {
			return err
		}
		o.rested = now + peekRest*spent
	}
	for _, c := range due {
		stage := observe.Stage(atomic.LoadUint32(&o.shared.containers[c.index].Stage))
		if stage == observe.StageReload && now-c.stagedAt > reloadWindow {
			stage = observe.StageRun
		}
		o.tick(c, stage)
	}
	return o.links.set(&o.objects, o.need())
}

// cpuTime that f takes. On a busy host that is little of the time that passes: a peek that had to wait for a CPU would make for
// a rest, and so for epochs, of twenty times that.
func cpuTime(f func() error) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime()
	err := f()
	return threadTime() - before, err
}

func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // every kernel has it
	return time.Duration(ts.Nano())
}

// readDenials until the ring is flushed: what the kernel told before that is handed on.
func (o *Observer) readDenials() error {
	var raw ringbuf.Record
	for {
		err := o.events.ReadInto(&raw)
		if errors.Is(err, ringbuf.ErrFlushed) || errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read denials: %w", err)
		}
		if err := o.deliver(raw.RawSample); err != nil {
			return err
		}
	}
}

// deliver an event to whom it may concern, unless they are too slow.
func (o *Observer) deliver(sample []byte) error {
	var e bpfDenial
	if _, err := binary.Decode(sample, binary.NativeEndian, &e); err != nil {
		return fmt.Errorf("decode an event of %d bytes: %w", len(sample), err)
	}
	if bpfEvent(e.Kind) == bpfEventEVENT_ARRIVED {
		select {
		case o.arrived <- Arrival{ID(e.Uid), int(e.Pid)}:
			return nil
		default:
		}
	} else {
		select {
		case o.denials <- denialOf(e):
			return nil
		default:
		}
	}
	// A denial is counted in its map all the same; only the telling is lost.
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.containers[ID(e.Uid)]; c != nil {
		c.untold++
	}
	return nil
}

func denialOf(e bpfDenial) Denial {
	return Denial{
		Container: ID(e.Uid),
		Time:      time.Now().Add(time.Duration(e.Ns) - bootTime()),
		PID:       int(e.Pid),
		TID:       int(e.Tid),
		Comm:      workload.Printable(cString(e.Comm[:]), 16),
		Lane:      observe.Lane(e.Lane),
		Call:      syscalls.Call{ABI: syscalls.ABI(e.Abi), Nr: uint32(e.Nr)},
		Errno:     e.Error,
		Args:      e.Args,
		Count:     e.Count,
	}
}
