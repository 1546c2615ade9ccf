// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// BenchmarkCost reports what a cheap call costs a process, in ns of its CPU time, the least of several rounds: without any
// program, under an empty program, and with the observer attached, inside an observed container and outside. One iteration
// measures all variants in turn, so that a machine that changes its speed changes them together.
func BenchmarkCost(b *testing.B) {
	b.Run("calls", func(b *testing.B) { benchmarkCost(b) })
	b.Run("bursts", func(b *testing.B) { benchmarkCost(b, "bursts") })
}

func benchmarkCost(b *testing.B, args ...string) {
	loop := buildC(b, "loop.c")
	g := newCgroup(b)
	least := map[string]float64{}
	measure := func(name string, cmd *exec.Cmd) {
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		if err != nil {
			b.Fatal(err)
		}
		if have, ok := least[name]; !ok || ns < have {
			least[name] = ns
		}
	}
	for b.Loop() {
		measure("none", exec.Command(loop, args...))
		withEmpty(b, func() { measure("empty", exec.Command(loop, args...)) })
		o, err := Open(discard)
		if err != nil {
			b.Fatal(err)
		}
		id, err := o.Observe(Target{CgroupID: g.id})
		if err != nil {
			b.Fatal(err)
		}
		withoutExit(b, o, func() {
			measure("outside", exec.Command(loop, args...))
			measure("observed", g.command(loop, args...))
		})
		measure("outside+exit", exec.Command(loop, args...))
		measure("observed+exit", g.command(loop, args...))
		if _, err := o.Finish(id, true); err != nil {
			b.Fatal(err)
		}
		measure("detached", exec.Command(loop, args...))
		o.Close()
	}
	for name, ns := range least {
		b.ReportMetric(ns, "ns/call-"+name)
	}
	b.ReportMetric(0, "ns/op")
}

// withEmpty runs f while a program that does nothing is attached to sys_enter: the price of any tracer.
func withEmpty(b *testing.B, f func()) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, 0, asm.DWord), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: p})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	f()
}

// withoutExit runs f with the feed of denials detached, as it is once a container without a filter of its own has booted.
func withoutExit(b *testing.B, o *Observer, f func()) {
	n := need{lives: true, enter: true}
	if err := o.links.set(&o.objects, n); err != nil {
		b.Fatal(err)
	}
	f()
	n.exit = true
	if err := o.links.set(&o.objects, n); err != nil {
		b.Fatal(err)
	}
}
