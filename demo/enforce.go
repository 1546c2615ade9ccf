// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

const rounds = 5

// enforce what was learned, and compare with the engine's default profile.
func (d *demo) enforce(ctx context.Context) error {
	d.say("The same image again, under what was learned")
	profile, err := d.cli(ctx, true, "policy", "export", "redis", "--format", "oci")
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.path("redis.json"), []byte(profile), 0o644); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "$ podman run --security-opt seccomp=redis.json …")
	enforced, err := d.start(ctx, "enforced", true, "--security-opt", "seccomp="+d.path("redis.json"))
	if err != nil {
		return err
	}
	// The one to compare with is nobody's business: it is started without the hooks.
	standard, err := d.start(ctx, "default", false)
	if err != nil {
		return err
	}
	var under, against []float64
	for range rounds { // in turn, so that a machine that changes its speed changes it for both
		for _, side := range []struct {
			port string
			into *[]float64
		}{{enforced, &under}, {standard, &against}} {
			rate, err := throughput(ctx, side.port)
			if err != nil {
				return err
			}
			*side.into = append(*side.into, rate)
		}
	}
	a, b := median(under), median(against)
	fmt.Fprintf(d.out, "redis-benchmark SET, median of %d rounds in turn: %.0f requests/s under the policy, %.0f under the default: ratio %.2f\n",
		rounds, a, b, a/b)
	if _, err := d.env.Run(ctx, "rm", "-f", "default"); err != nil {
		return err
	}
	refused, err := d.refused(ctx)
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		return fmt.Errorf("the service was refused %d calls: %v", len(refused), refused)
	}
	fmt.Fprintln(d.out, "refused: nothing")
	return nil
}

// throughput of SET in requests a second.
func throughput(ctx context.Context, port string) (float64, error) {
	out, err := command(ctx, "redis-benchmark", "-p", port, "--csv", "-t", "set", "-n", "60000", "-c", "20").Output()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w", err)
	}
	rows, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	if err != nil || len(rows) != 2 || len(rows[1]) < 2 {
		return 0, errors.Join(fmt.Errorf("redis-benchmark printed %q", out), err)
	}
	return strconv.ParseFloat(rows[1][1], 64)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// refused are the calls in the journal that a filter answered, one for each event.
func (d *demo) refused(ctx context.Context) (calls []string, err error) {
	events, err := d.client.Events(ctx, api.EventQuery{Kind: "refused", Limit: 1000})
	for _, e := range events {
		calls = append(calls, e.Call)
	}
	return calls, err
}

// attack from inside: what somebody who got in would try.
func (d *demo) attack(ctx context.Context) error {
	d.say("Somebody got in: podman exec enforced attack")
	for _, a := range attempts {
		fmt.Fprintf(d.out, "  tries %-15s %s\n", a.call, a.why)
	}
	if _, err := d.env.Run(ctx, "exec", "enforced", "/usr/bin/attack"); err != nil {
		return err
	}
	var missing []string
	err := until(ctx, 10*time.Second, "every attempt is in the journal", func() bool {
		refused, err := d.refused(ctx)
		missing = nil
		for _, a := range attempts {
			if !slices.Contains(refused, a.call) {
				missing = append(missing, a.call)
			}
		}
		return err == nil && len(missing) == 0
	})
	if err != nil {
		return fmt.Errorf("%w; not refused: %v", err, missing)
	}
	events, err := d.cli(ctx, true, "event", "list", "--kind", "refused")
	fmt.Fprint(d.out, events)
	return err
}

// report what the policy takes away.
func (d *demo) report(ctx context.Context) error {
	d.say("What was learned")
	shown, err := d.cli(ctx, true, "policy", "show", "redis")
	if err != nil {
		return err
	}
	// The head and the summary; the table of calls in between is long.
	head, rest, _ := strings.Cut(shown, "\n\n")
	fmt.Fprintln(d.out, head)
	if i := strings.LastIndex(rest, "\n\n"); i >= 0 {
		fmt.Fprint(d.out, "  …\n", rest[i+2:])
	}
	return nil
}
