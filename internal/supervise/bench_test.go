// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkHeld is the round trip of one call that is held and let go on, as its caller sees it.
func BenchmarkHeld(b *testing.B) {
	for _, bench := range []struct {
		name string
		cpus []int
	}{{"same CPU", []int{0}}, {"any CPU", nil}} {
		b.Run(bench.name, func(b *testing.B) {
			s := run(b, 4)
			p := newProcess(b, "bench")
			add(b, s.Supervisor, 1, p.listener, allow)
			if bench.cpus != nil {
				pin(b, os.Getpid(), bench.cpus)
				pin(b, p.cmd.Process.Pid, bench.cpus)
			}
			p.tell("1000")
			p.line()
			b.ResetTimer()
			p.tell(strconv.Itoa(b.N))
			ns, err := strconv.ParseFloat(p.line(), 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(ns/float64(b.N), "caller-ns/op")
		})
	}
}

// pin all threads of a process to some CPUs, until the benchmark ends.
func pin(b *testing.B, pid int, cpus []int) {
	b.Helper()
	var set, before unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedGetaffinity(pid, &before); err != nil {
		b.Fatal(err)
	}
	each := func(set *unix.CPUSet) {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return // it ended
		}
		for _, task := range tasks {
			if tid, err := strconv.Atoi(task.Name()); err == nil {
				_ = unix.SchedSetaffinity(tid, set)
			}
		}
	}
	each(&set)
	b.Cleanup(func() { each(&before) })
}
