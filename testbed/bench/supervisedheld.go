// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	heldRounds  = 6
	heldLearned = 5
	heldCalls   = 400 // a round: a boot that makes more of one call is not asked about it
	// heldCommand makes this program the one that times its calls.
	heldCommand  = "held"
	heldVariable = "BENCH_CALLS"
)

// heldSubject is a program that makes a boot-only call over and over: setuid to the user that it is.
func heldSubject() *subject {
	return &subject{name: "held", command: []string{"/probe", heldCommand},
		options: func(_ *supervisedBed, _ string, calls int) ([]string, error) {
			return []string{"--rm", fmt.Sprintf("--env=%s=%d", heldVariable, calls)}, nil
		}}
}

// timeCalls is what runs in the container.
func timeCalls() error {
	calls, err := strconv.Atoi(os.Getenv(heldVariable))
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	times := make([]int64, calls)
	for i := range times {
		began := time.Now()
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETUID, 0, 0, 0); errno != 0 {
			return fmt.Errorf("setuid: %w", errno)
		}
		times[i] = int64(time.Since(began))
	}
	return json.NewEncoder(os.Stdout).Encode(times)
}

// held runs the program to its end; it returns the time of each call in ns.
func (bed *supervisedBed) held(ctx context.Context, s *subject, v variant, calls int) ([]float64, error) {
	bed.lock.Lock()
	bed.started++
	name := fmt.Sprintf("held-%d", bed.started)
	bed.lock.Unlock()
	args, err := bed.arguments(s, v, name, calls)
	if err != nil {
		return nil, err
	}
	out, err := bed.podman(ctx, v, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("time calls, %s: %w: %s", v, err, stderrOf(err))
	}
	var times []float64
	if err := json.Unmarshal(out, &times); err != nil {
		return nil, fmt.Errorf("time calls, %s: %w", v, err)
	}
	return times, nil
}

// heldCost measures a call that is held and goes on, as its caller sees it.
func (b *bench) heldCost(ctx context.Context) error {
	bed, err := b.supervisedBed(ctx)
	if err != nil {
		return err
	}
	s := bed.subjects[len(bed.subjects)-1]
	variants := []variant{unfiltered, standard, supervised}
	times := map[variant][]float64{}
	for range b.rounds(heldRounds) {
		for _, v := range variants {
			t, err := bed.held(ctx, s, v, heldCalls)
			if err != nil {
				return err
			}
			times[v] = append(times[v], t...)
		}
	}
	t := b.report.table("A call that is held", fmt.Sprintf("What a boot-only call (setuid) costs a booting process in a container, in µs, seen from "+
		"inside: under supervision it stops in the kernel, the agent looks it up and lets it go on. %d calls in each of %d containers.",
		heldCalls, b.rounds(heldRounds)), "variant", "median", "p99", "least", "most")
	for _, v := range variants {
		us := func(q float64) string { return fmt.Sprintf("%.2f", quantile(times[v], q)/1000) }
		label := string(v)
		if v == supervised {
			label += " (held, and let go on)"
		}
		t.row(label, us(0.5), us(0.99), us(0), fmt.Sprintf("%.0f", slices.Max(times[v])/1000))
	}
	return nil
}

func stderrOf(err error) []byte {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.Stderr
	}
	return nil
}
