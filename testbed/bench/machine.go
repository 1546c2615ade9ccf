// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// describeMachine in plain words, without names.
func describeMachine() []string {
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		// The build's suffix may name who built it.
		kernel = regexp.MustCompile(`^[0-9]+\.[0-9]+`).FindString(unix.ByteSliceToString(u.Release[:]))
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	cpu := field(string(info), "model name")
	where := "no hypervisor"
	if strings.Contains(field(string(info), "flags"), " hypervisor") {
		where = "a virtual machine"
	}
	memory, _ := os.ReadFile("/proc/meminfo")
	var kb int
	fmt.Sscanf(field(string(memory), "MemTotal"), "%d", &kb)
	release, _ := os.ReadFile("/etc/os-release")
	system := strings.Trim(assigned(string(release), "PRETTY_NAME"), `"`)
	load, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(load), " ")
	return []string{
		fmt.Sprintf("%d CPUs (%s), %d GB of memory, %s", runtime.NumCPU(), cpu, (kb+1<<19)>>20, where),
		fmt.Sprintf("%s, Linux %s, %s", system, kernel, runtime.Version()),
		fmt.Sprintf("Load average when the run began: %s", first),
	}
}

func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func assigned(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	return "unknown system"
}

// tracers counts the BPF programs on the host's raw tracepoints of system calls, ours and everybody's. Each of them makes
// every call of every process dearer, so a figure is worth nothing while somebody else's is attached. Programs of perf are
// not among them.
func tracers() (n int, err error) {
	for range 100 {
		if n, err = countTracers(); !errors.Is(err, unix.EAGAIN) { // a link that is being closed
			return n, err
		}
	}
	return n, err
}

func countTracers() (n int, err error) {
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			continue // it was closed just now
		}
		if raw := info.RawTracepoint(); raw != nil && (raw.Name == "sys_enter" || raw.Name == "sys_exit") {
			n++
		}
	}
	return n, it.Err()
}
