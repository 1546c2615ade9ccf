// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// empty is a program that does nothing, and its link: the price of any tracer.
type empty struct {
	program *ebpf.Program
	link    io.Closer
}

func (e empty) Close() error { return errors.Join(e.link.Close(), e.program.Close()) }

func attachEmpty(tracepoint string) (empty, error) {
	p, err := loadEmpty()
	if err != nil {
		return empty{}, err
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: p})
	if err != nil {
		return empty{}, errors.Join(fmt.Errorf("attach an empty program: %w", err), p.Close())
	}
	return empty{p, l}, nil
}

func loadEmpty() (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, 0, asm.DWord), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load an empty program: %w", err)
	}
	return p, nil
}

// count is what people write with bpftrace; what is printed ten times a second tells that it runs.
const count = `tracepoint:raw_syscalls:sys_enter { @[cgroup, args->id] = count(); } interval:ms:100 { printf("on\n"); }`

const withTracefs = `[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing || exit; exec "$0" "$@"`

// bpftrace counts the calls of the whole host while a probe runs, and must have counted the probe's.
func (c *calls) bpftrace(ctx context.Context) error {
	tracer, err := exec.LookPath("bpftrace")
	if err != nil {
		return nil // the table says so
	}
	// In a mount namespace of its own, since it needs tracefs, which not every host has mounted.
	cmd := exec.CommandContext(ctx, "sh", "-c", withTracefs, tracer, "-e", count)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: syscall.CLONE_NEWNS}
	cmd.Env = append(os.Environ(), "BPFTRACE_MAP_KEYS_MAX=65536") // 4096 keys are few on a host of many containers
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) }
	cmd.WaitDelay = 2 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(stdout)
	var line string
	for err == nil && line != "on\n" { // "Attaching 2 probes...", which it does after having said it
		line, err = lines.ReadString('\n')
	}
	startErr := err
	err = c.sample(ctx, "bpftrace", 0, probe{in: c.inside, plan: plain})
	cmd.Process.Signal(unix.SIGINT)
	out, readErr := io.ReadAll(lines)
	if err := errors.Join(startErr, err, readErr, cmd.Wait()); err != nil {
		return fmt.Errorf("bpftrace: %w: %s", err, stderr.String())
	}
	// @[cgroup, nr]: n
	var id, nr, n, counted uint64
	for line := range strings.Lines(string(out)) {
		if got, _ := fmt.Sscanf(line, "@[%d, %d]: %d", &id, &nr, &n); got == 3 && id == c.inside.id && nr == unix.SYS_GETPPID {
			counted = n
		}
	}
	if want := uint64(plain.Rounds * plain.Calls); counted < want {
		c.b.say("bpftrace counted %d of %d calls: this sample does not count", counted, want)
		c.costs["bpftrace"] = c.costs["bpftrace"][:len(c.costs["bpftrace"])-1]
	}
	return nil
}
