// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// probe is a process that measures its own calls.
type probe struct {
	plan loopPlan
	in   *group   // nil: outside of any container
	wrap []string // a tracer that runs it
	// ready is called when the probe waits after accepting.
	ready func(context.Context) error
}

func (p probe) run(ctx context.Context) (cost loopCost, err error) {
	self, err := os.Executable()
	if err != nil {
		return cost, err
	}
	plan, err := json.Marshal(p.plan)
	if err != nil {
		return cost, err
	}
	argv := append(append([]string{}, p.wrap...), self, loopCommand, string(plan))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// Go's scheduler would interrupt the loop every 10 ms to see whether anybody else wants to run.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=2")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.in != nil {
		p.in.put(cmd)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return cost, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return cost, err
	}
	if err := cmd.Start(); err != nil {
		return cost, err
	}
	lines := bufio.NewReader(stdout)
	defer func() {
		stdin.Close()
		if waited := cmd.Wait(); waited != nil {
			err = errors.Join(fmt.Errorf("%v: %w: %s", argv, waited, stderr.String()), err)
		}
	}()
	if p.plan.Accept {
		if _, err := lines.ReadString('\n'); err != nil {
			return cost, fmt.Errorf("wait for the probe: %w", err)
		}
		if p.ready != nil {
			if err := p.ready(ctx); err != nil {
				return cost, err
			}
		}
		if _, err := stdin.Write([]byte("\n")); err != nil {
			return cost, err
		}
	}
	if err := json.NewDecoder(lines).Decode(&cost); err != nil {
		return cost, fmt.Errorf("read the probe's answer: %w", err)
	}
	return cost, nil
}

// quiet waits for a moment in which only our own number of tracers is on the host, as long as the budget lasts.
func (c *calls) quiet(ctx context.Context, ours int) error {
	for {
		n, err := tracers()
		if err != nil || n == ours || c.patience <= 0 {
			return err
		}
		const step = 20 * time.Millisecond
		c.patience -= step
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(step):
		}
	}
}

// attempts to get a sample that no other tracer has disturbed.
const attempts = 4

// sample runs a probe while ours tracers of our own are attached.
func (c *calls) sample(ctx context.Context, name string, ours int, p probe) error {
	var cost loopCost
	clean := false
	for i := 0; i < attempts && !clean; i++ {
		if p.ready == nil { // else it does so itself
			if err := c.quiet(ctx, ours); err != nil {
				return err
			}
		}
		var err error
		if cost, err = p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n, err := tracers()
		if err != nil {
			return err
		}
		// The order of these two: a tracer may have come and gone, which the least of several rounds forgives.
		clean = n == ours
	}
	value := cost.CPU
	if p.wrap != nil {
		value = cost.Wall // who waits for a tracer uses no CPU time
	}
	c.costs[name] = append(c.costs[name], sample{value, clean})
	return nil
}
