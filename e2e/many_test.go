// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

var short = []string{"/bin/busybox", "sleep", "0.1"}

// TestShortLivedContainers, as many as the machine starts: none is lost.
func TestShortLivedContainers(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedTool(t, "busybox")
	t.Run("podman", func(t *testing.T) {
		testenv.NeedPodman(t)
		e := bedtest.Up(t, "")
		bedtest.LoadBusybox(t, e)
		d := startAgent(t, "--podman", e.Socket(), "--hooks-dir", e.HooksDir())
		const count = 30
		atOnce(t, count, 4, func(ctx context.Context, i int) error {
			_, err := e.Run(ctx, append([]string{"run", "--rm", "--network", "none", "--name", fmt.Sprintf("short-%d", i), bedtest.Busybox}, short...)...)
			return err
		})
		noneLost(t, d, count)
	})
	t.Run("runc", func(t *testing.T) {
		testenv.NeedRuntime(t, "runc")
		d := startAgent(t, "--podman", "")
		b := newBundle(t, d, bedtest.BusyboxFiles(t), func(s *specs.Spec) { s.Process.Args = short })
		const count = 500
		atOnce(t, count, 8, func(ctx context.Context, i int) error {
			out, err := b.command(ctx, containerID(fmt.Sprintf("short-%d", i))).CombinedOutput()
			if err != nil {
				return fmt.Errorf("runc run: %w: %s", err, out)
			}
			return nil
		})
		noneLost(t, d, count)
	})
}

// atOnce starts count of something, some at a time.
func atOnce(t *testing.T, count, some int, start func(context.Context, int) error) {
	t.Helper()
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range some {
		wg.Go(func() {
			for i := range numbers {
				if err := start(t.Context(), i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range count {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
}

// noneLost: each was registered in time, drained, and is in the policy.
func noneLost(t *testing.T, d *daemon, count int) {
	t.Helper()
	d.forgotten()
	p := only(t, d, func(api.Summary) bool { return true })
	balanced(t, p)
	if p.Account.Runs != count {
		t.Errorf("the policy has %d runs, want %d", p.Account.Runs, count)
	}
	// Every one of them slept, and ended by itself.
	for _, name := range []string{"nanosleep", "clock_nanosleep", "exit_group"} {
		nr, _ := syscalls.Number(syscalls.X86_64, name)
		if e := p.ABIs[syscalls.X86_64].Evidence[nr]; e.Runs != 0 && e.Runs != count || name == "exit_group" && e.Runs != count {
			t.Errorf("%s was seen in %d runs: %+v", name, e.Runs, e)
		}
	}
	started, ended := map[string]int{}, map[string]int{}
	for _, e := range d.events() {
		switch {
		case e.Kind == "start":
			started[e.Container]++
		case e.Kind == "stop" && strings.Contains(e.Text, "complete"):
			ended[e.Container]++
		case e.Kind == "problem":
			t.Errorf("problem: %+v", e)
		}
	}
	if len(started) != count || len(ended) != count {
		t.Errorf("%d were registered and %d ended, want %d", len(started), len(ended), count)
	}
	for name, n := range started {
		if n != 1 || ended[name] != 1 {
			t.Errorf("%s was registered %d times and ended %d times", name, n, ended[name])
		}
	}
}
