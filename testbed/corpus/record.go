// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/corpus"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/testbed/services"
)

// recorder of services, one after another.
type recorder struct {
	observer *kernel.Observer
	say      func(format string, args ...any)
}

// loads is how often an operation of load is done: before the rare ones, and after them.
const loads = 2

// record one service from its first call to its last. What fails is told, and the rest is recorded.
func (r *recorder) record(ctx context.Context, s services.Service) (out corpus.Service, err error) {
	out = corpus.Service{Name: s.Name, Arch: runtime.GOARCH, Kernel: release()}
	for _, name := range s.Packages {
		out.Packages = append(out.Packages, name+" "+services.Version(ctx, name))
	}
	began := time.Now()
	var id kernel.ID
	observed := false
	i, err := services.Start(ctx, s, services.Options{Created: func(i *services.Instance) (err error) {
		id, err = r.observe(i)
		observed = err == nil
		return err
	}})
	if err != nil {
		if observed {
			_, finish := r.observer.Finish(id, true)
			err = errors.Join(err, finish)
		}
		return out, err
	}
	defer func() { err = errors.Join(err, i.Remove()) }()
	r.say("%s is ready after %.1f s", s.Name, time.Since(began).Seconds())
	if stage, ok := r.observer.Stage(id); ok && stage == observe.StageBoot {
		if err := r.observer.SetStage(id, observe.StageRun); err != nil {
			return out, err
		}
	}
	r.operate(ctx, i, &out)
	stopped := i.Stop(ctx)
	if stopped != nil {
		out.Failed = append(out.Failed, "stop")
		r.say("%s: stop: %v", s.Name, stopped)
	}
	trace, err := r.observer.Finish(id, stopped == nil)
	if err != nil {
		return out, err
	}
	for _, problem := range trace.Account.Problems() {
		r.say("%s: the recording: %s", s.Name, problem)
	}
	out.Seconds = float64(time.Since(began).Round(100*time.Millisecond)) / float64(time.Second)
	out.Roles, out.Bursts = corpus.FromTrace(trace)
	return out, nil
}

// operate on a service: load, the rare operations, load again, and what ends it.
func (r *recorder) operate(ctx context.Context, i *services.Instance, out *corpus.Service) {
	do := func(op services.Op) {
		if ctx.Err() != nil || !i.Alive() || slices.Contains(out.Failed, op.Name) {
			return
		}
		began := time.Now()
		if err := op.Do(ctx, i); err != nil {
			out.Failed = append(out.Failed, op.Name)
			r.say("%s: %s failed: %v\n%s", i.Name, op.Name, err, logs(i))
			return
		}
		r.say("%s: %s, %.1f s", i.Name, op.Name, time.Since(began).Seconds())
		if !slices.Contains(out.Ops, op.Name) {
			out.Ops = append(out.Ops, op.Name)
		}
	}
	each := func(rare, last bool) {
		for _, op := range i.Ops {
			if op.Rare == rare && op.Last == last {
				do(op)
			}
		}
	}
	for range loads {
		each(false, false)
	}
	each(true, false)
	each(false, false)
	each(true, true)
	each(false, true)
}

func (r *recorder) observe(i *services.Instance) (kernel.ID, error) {
	p, err := i.Process()
	if err != nil {
		return 0, err
	}
	defer p.Close()
	cgroup, err1 := p.CgroupID()
	mounts, err2 := p.MountNS()
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	return r.observer.Observe(kernel.Target{CgroupID: cgroup, MountNS: mounts, InitPID: i.PID, StopSignal: int(i.StopSignal), Filtered: true})
}

// logs are what a service had to say when something failed.
func logs(i *services.Instance) string {
	var b strings.Builder
	show := func(name, text string) {
		if text = strings.TrimSpace(text); text != "" {
			fmt.Fprintf(&b, "  %s: %s\n", name, text[max(0, len(text)-2000):])
		}
	}
	show("output", i.Log())
	for _, name := range i.Logs {
		text, _ := os.ReadFile(i.Path(name))
		show(name, string(text))
	}
	return b.String()
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	version, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return "Linux " + version
}
