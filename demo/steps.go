// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/testbed"
)

// learnFor is long enough for what the loads do, and much shorter than what `whittle agent --mode auto` waits for.
const learnFor = 28 * time.Second

// prepare a private Podman, the images, their data and the agent.
func (d *demo) prepare(ctx context.Context) (err error) {
	d.say("A private Podman, images of the installed Redis, nginx and PostgreSQL, and the agent")
	if d.env, err = testbed.Up(ctx, d.path("podman"), ""); err != nil {
		return err
	}
	if err := os.Mkdir(d.path("no-hooks"), 0o755); err != nil {
		return err
	}
	if err := d.describe(); err != nil {
		return err
	}
	for _, s := range d.services {
		if err := d.build(ctx, s); err != nil {
			return err
		}
	}
	if err := d.seed(ctx); err != nil {
		return err
	}
	log, err := os.Create(d.path("agent.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// Not CommandContext: at Ctrl-C the agent ends last, and in order.
	agent := command(context.Background(), d.whittle, "agent", "--socket", d.path("whittle.sock"), "--state", d.path("state"),
		"--podman", d.env.Socket(), "--hooks-dir", d.env.HooksDir())
	agent.Stdout, agent.Stderr = log, log
	if err := agent.Start(); err != nil {
		return err
	}
	d.agent, d.client = agent, api.NewClient(d.path("whittle.sock"))
	return until(ctx, 15*time.Second, "the agent answers", func() bool {
		_, err := d.client.Status(ctx)
		return err == nil
	})
}

// learn all three while they serve, and show how that goes.
func (d *demo) learn(ctx context.Context) error {
	d.say("All three, unmodified and with load from the first moment, are learned from for %.0f s", learnFor.Seconds())
	for _, s := range d.services {
		if err := d.start(ctx, s, s.name, true); err != nil {
			return err
		}
		s.startLoad(ctx)
	}
	begin := time.Now()
	var head strings.Builder
	head.WriteString(fmt.Sprintf("%6s", "TIME"))
	for _, s := range d.services {
		head.WriteString(fmt.Sprintf("  %-30s", strings.ToUpper(s.name)))
	}
	fmt.Fprintln(d.out, strings.TrimRight(head.String(), " "))
	for i := 1; time.Since(begin) < learnFor; i++ {
		if err := sleep(ctx, time.Until(begin.Add(time.Duration(i)*4*time.Second))); err != nil {
			return err
		}
		if err := d.printLearned(ctx, time.Since(begin)); err != nil {
			return err
		}
		if i == 3 {
			if err := d.poison(ctx); err != nil {
				return err
			}
		}
		if i == 2 || i == 4 {
			if _, err := d.podman(ctx, "exec", "nginx", "nginx", "-s", "reload"); err != nil {
				return err
			}
		}
	}
	booted, err := d.booted(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(d.out, booted)
	fmt.Fprintln(d.out, "p: at most so likely is an unseen call in the next burst of work. `whittle agent --mode auto` waits longer than a demo.")
	if err := d.stopAll(ctx); err != nil {
		return err
	}
	if err := d.ended(ctx, len(d.services)); err != nil {
		return err
	}
	return d.quarantined(ctx)
}

func (d *demo) printLearned(ctx context.Context, at time.Duration) error {
	status, err := d.client.Status(ctx)
	if err != nil {
		return err
	}
	var line strings.Builder
	line.WriteString(fmt.Sprintf("%5.0fs", at.Seconds()))
	for _, s := range d.services {
		cell := "?"
		if c, ok := containerOf(status, s.name); ok {
			cell = fmt.Sprintf("%-6s %3d calls, p ≤ %.1g", c.Phase, c.Distinct, c.Settled.PUnseen)
		}
		line.WriteString(fmt.Sprintf("  %-30s", cell))
	}
	_, err = fmt.Fprintln(d.out, strings.TrimRight(line.String(), " "))
	return err
}

// booted tells how long each took to boot, by what was learned.
func (d *demo) booted(ctx context.Context) (string, error) {
	status, err := d.client.Status(ctx)
	if err != nil {
		return "", err
	}
	var took []string
	for _, s := range d.services {
		c, ok := containerOf(status, s.name)
		if !ok || c.BootEnd == 0 {
			return "", fmt.Errorf("nobody knows when %s had booted", s.name)
		}
		took = append(took, fmt.Sprintf("%s %.2f s", s.name, c.BootEnd.Seconds()))
	}
	return "booting took: " + strings.Join(took, ", "), nil
}

func containerOf(s api.Status, name string) (api.Container, bool) {
	for _, c := range s.Containers {
		if c.Name == name {
			return c, true
		}
	}
	return api.Container{}, false
}

// stopAll loads and then the services, by SIGTERM.
func (d *demo) stopAll(ctx context.Context) error {
	if err := d.endLoad(); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "$ podman stop redis nginx postgres")
	for _, s := range d.services {
		if err := d.remove(ctx, s.name); err != nil {
			return err
		}
	}
	return nil
}

// endLoad and tell what came of it. An error is one too many.
func (d *demo) endLoad() error {
	w := tabwriter.NewWriter(d.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tREQUESTS\tERRORS")
	var failed error
	for _, s := range d.services {
		s.stopLoad()
		n, err := s.load.count()
		if err != nil || n == 0 {
			failed = fmt.Errorf("the load on %s: %d requests: %w", s.name, n, err)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", s.name, n, noneOr(err))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return failed
}

func noneOr(err error) string {
	if err == nil {
		return "none"
	}
	return err.Error()
}

// ended waits until the agent has stored what it learned of so many containers.
func (d *demo) ended(ctx context.Context, n int) error {
	return until(ctx, 20*time.Second, "the agent has stored what it learned", func() bool {
		ended, err := d.client.Events(ctx, api.EventQuery{Kind: "stop", Limit: 100})
		return err == nil && len(ended) >= n
	})
}

// report what each phase keeps, and who keeps what: the part of `policy show` that is about supervision.
func (d *demo) report(ctx context.Context) error {
	d.say("What each may do in which phase, and what it loses once it serves")
	for _, s := range d.services {
		fmt.Fprintf(d.out, "$ whittle policy show %s\n", s.name)
		text, err := d.cli(ctx, "policy", "show", s.name)
		if err != nil {
			return err
		}
		head, rest, _ := strings.Cut(text, "\n\n")
		_, rest, found := strings.Cut(rest, "\nSUPERVISED")
		phases, rest, more := strings.Cut(rest, "\nopen ")
		if !found || !more {
			return fmt.Errorf("policy show %s says nothing of supervision: %s", s.name, text)
		}
		_, asking, _ := strings.Cut(rest, "\nasking costs")
		fmt.Fprintf(d.out, "%s\n  …\nSUPERVISED%s\n  …\nasking costs%s\n", head, phases, strings.TrimRight(asking, "\n"))
	}
	return nil
}

// until something holds, which is looked at ten times a second.
func until(ctx context.Context, limit time.Duration, what string, holds func() bool) error {
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for this: %s", limit, what)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
