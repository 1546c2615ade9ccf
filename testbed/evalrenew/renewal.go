// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/renew"
)

// way of replacing what runs.
type way struct {
	name string
	args []string // of whittle renew
}

// The ways that are compared. What a service allows is whittle's to choose; the others say what that is worth.
const (
	chosen  = "chosen"
	restart = "podman restart"
)

var ways = map[string]way{
	chosen:  {name: "whittle renew"},
	"hold":  {name: "whittle renew --strategy hold", args: []string{"--strategy", "hold"}},
	restart: {name: restart},
}

// round is one renewal under load.
type round struct {
	stats
	Took  time.Duration
	Gap   time.Duration // as whittle says: no new connection was answered
	Slow  int           // requests under way when it was told to stop
	Cut   int           // of these, not finished
	Drain time.Duration // that these took after it was told to stop
	Tool  []string      // the first of what the load generator said of failures
	Said  int           // how often it said something
	Chose renew.Strategy
	Steps []renew.Done
}

// renewOnce under load, and count what the clients saw.
func (b *bed) renewOnce(ctx context.Context, s *service, w way) (r round, err error) {
	all := startClients(ctx, s)
	tool := startTool(ctx, s)
	time.Sleep(b.tail)
	var under slow
	if s.slow != nil {
		for range 3 {
			under.begin(ctx, s.target(), s.slow)
		}
	}
	began := time.Now()
	moved, err := b.replace(ctx, s, w, &r)
	r.Took = time.Since(began)
	time.Sleep(b.tail)
	ended := time.Now()
	requests := all.end()
	under.end()
	r.Slow, r.Cut = under.n, len(under.errs)
	if i := slices.IndexFunc(r.Steps, func(d renew.Done) bool { return d.Step == renew.StepStop }); i >= 0 && r.Slow > 0 {
		r.Drain = max(0, under.last.Sub(r.Steps[i].At))
	}
	r.Tool = tool.end()
	r.Said = len(r.Tool)
	r.Tool = r.Tool[:min(r.Said, maxErrors)]
	if moved.IsZero() {
		moved = began
	}
	r.stats = summarise(requests, began, moved, ended)
	return r, err
}

// replace what runs; when new connections began to wait or to go elsewhere.
func (b *bed) replace(ctx context.Context, s *service, w way, r *round) (moved time.Time, err error) {
	if w.name == restart {
		_, err := b.env.Run(ctx, "restart", "-t", "60", s.name)
		return time.Time{}, err
	}
	args := append([]string{"renew", s.name, "--podman", b.env.Socket(), "--json", "--state", b.dir + "/state"}, w.args...)
	cmd := command(ctx, b.whittle, args...)
	cmd.Env = append(os.Environ(), b.env.Environ()...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return time.Time{}, fmt.Errorf("whittle renew: %w: %s %s", err, strings.TrimSpace(stderr.String()), out)
	}
	var result renew.Result
	if err := json.Unmarshal(out, &result); err != nil {
		return time.Time{}, fmt.Errorf("whittle renew: %w", err)
	}
	if result.Outcome != renew.Renewed {
		return time.Time{}, errors.New("whittle renew: " + result.Why)
	}
	r.Gap, r.Chose, r.Steps = result.Gap, result.Strategy, result.Steps
	at := slices.IndexFunc(result.Steps, func(d renew.Done) bool {
		return (d.Step == renew.StepHold || d.Step == renew.StepTurn) && d.State == renew.Ended
	})
	if at < 0 {
		return time.Time{}, errors.New("whittle renew does not say when connections moved")
	}
	return result.Steps[at].At.Add(result.Steps[at].Took), nil
}

// generator is load by the service's own tool, again and again.
type generator struct {
	stop context.CancelFunc
	said chan []string
}

func startTool(ctx context.Context, s *service) *generator {
	ctx, stop := context.WithCancel(ctx)
	l := &generator{stop: stop, said: make(chan []string, 1)}
	go func() {
		var said []string
		for ctx.Err() == nil {
			args := s.tool(s, 2)
			out, _ := command(ctx, args[0], args[1:]...).CombinedOutput()
			if ctx.Err() != nil && len(out) == 0 {
				break
			}
			for _, m := range s.failed.FindAllStringSubmatch(string(out), -1) {
				said = append(said, args0(args)+": "+strings.TrimSpace(strings.Join(m[1:], "")))
			}
		}
		l.said <- said
	}()
	return l
}

func args0(args []string) string { return args[0][strings.LastIndexByte(args[0], '/')+1:] }

func (l *generator) end() []string {
	l.stop()
	return <-l.said
}
