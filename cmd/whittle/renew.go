// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/renew"
)

// renewFlags of the command.
type renewFlags struct {
	request  renew.Request
	strategy string
	writers  string
	address  string
	port     uint16
	keep     bool
	dryRun   bool
	recover  bool
	makers   makers
}

func newRenew(a *app) *cobra.Command {
	var f renewFlags
	cmd := &cobra.Command{
		Use:   "renew CONTAINER",
		Short: "have a successor take over from a running container, without refusing a connection",
		Long: `Make a container like this one, with another seccomp profile where --profile says so, start it, wait until it can serve,
give it the service's connections, and let the predecessor finish its requests and stop it. Name, volumes, addresses and
published ports stay. When the successor does not get ready, the predecessor serves again, and the reason is told.

How that is done is chosen by what the container allows; --dry-run shows it. The strategies, the least noticeable first:
  overlap   both run at once; the successor gets new connections when it is ready
  socket    systemd restarts the container's unit; new connections wait in the unit's socket
  hold      stop, then start; new connections wait beside the service, in a network that stays (host, pod, another container's)
  gate      stop, then start; new connections wait at the host, for a container with a network of its own
  restart   stop, then start; connections are refused meanwhile. Only when it is asked for`,
		Example: `  sudo whittle renew web --dry-run
  sudo whittle renew web --profile web.json
  sudo whittle renew db --ready-exec 'podman exec $WHITTLE_SUCCESSOR pg_isready'
  sudo whittle renew --recover`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeContainers,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			if err := f.understand(args); err != nil {
				return err
			}
			if os.Geteuid() != 0 {
				return hint.Add(errors.New("renewing a container needs root"), "run it with sudo")
			}
			if f.recover {
				return a.recoverRenewals(ctx, f)
			}
			return a.renew(ctx, f)
		},
	}
	f.flags(cmd)
	return cmd
}

func (f *renewFlags) flags(cmd *cobra.Command) {
	flags, q := cmd.Flags(), &f.request
	flags.BoolVar(&f.dryRun, "dry-run", false, "say how it would be done, and change nothing")
	flags.StringVar(&f.strategy, "strategy", "", "overlap, socket, hold, gate or restart, instead of the best that can be had")
	flags.StringVar(&q.Changes.Seccomp, "profile", "", "seccomp profile of the successor: a `FILE`, or unconfined; without it, the same")
	flags.StringVar(&f.writers, "writers", "", "how many instances may run on its volumes at once: one or many; without it, one if it can write to any")
	flags.StringVar(&f.address, "address", "", "in a network of its own: keep its address, or take any; without it, keep where the predecessor ends first")
	flags.StringVar(&q.Ready.HTTP, "ready-http", "", "it is ready when this `PATH` is answered with a status from 200 to 399")
	flags.StringVar(&q.Ready.Command, "ready-exec", "", "it is ready when this shell `COMMAND` succeeds on the host; $WHITTLE_SUCCESSOR is its ID")
	flags.Uint16Var(&f.port, "ready-port", 0, "the `PORT` that is asked whether it is ready; without it, the lowest")
	flags.DurationVar(&q.Drain, "drain", 0, "how long the predecessor may take to finish its requests, before it is killed; 0: its stop timeout")
	flags.DurationVar(&q.Patience, "patience", renew.DefaultPatience, "how long the successor may take to get ready")
	flags.BoolVar(&f.keep, "keep", false, "keep the predecessor, stopped")
	flags.StringVar(&q.Successor, "successor", "", "an existing `CONTAINER` that is stopped takes over; none is made, and none renamed")
	flags.BoolVar(&f.recover, "recover", false, "finish or undo what renewals that were killed have left")
	f.makers.flags(cmd)
	completeFlag(cmd, "strategy", "overlap", "socket", "hold", "gate", "restart")
	completeFlag(cmd, "writers", "one", "many")
	completeFlag(cmd, "address", "keep", "any")
}

// understand the command line.
func (f *renewFlags) understand(args []string) error {
	if f.recover {
		if len(args) > 0 {
			return usageError{errors.New("--recover is for all containers: name none")}
		}
		return nil
	}
	if len(args) == 0 || args[0] == "" {
		return usageError{hint.Add(errors.New("no container is named"), "whittle renew CONTAINER, or whittle renew --recover")}
	}
	q := &f.request
	q.Container, q.Strategy, q.Writers, q.Ready.Port = args[0], renew.Strategy(f.strategy), renew.Writers(f.writers), f.port
	q.Changes.Address = engine.Addressing(f.address)
	if f.keep {
		q.Retire = renew.RetireKeep
	}
	if q.Successor != "" && q.Changes.Seccomp != "" {
		return usageError{errors.New("--profile is for a successor that is made, and --successor names one that exists")}
	}
	if s := q.Changes.Seccomp; s != "" && s != engine.SeccompUnconfined {
		path, err := filepath.Abs(s)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return hint.Add(fmt.Errorf("find the profile: %w", err), "whittle policy export WORKLOAD > FILE writes one")
		}
		q.Changes.Seccomp = path
	}
	if err := q.Check(); err != nil {
		return usageError{err}
	}
	return nil
}

// renewals are recorded beside the agent's database, where its own are.
func (a *app) renewals() string { return filepath.Join(a.state, "renew") }

func (a *app) renew(ctx context.Context, f renewFlags) error {
	m, done, err := f.makers.of(ctx, f.request.Container)
	if err != nil {
		return err
	}
	defer done()
	r := &renew.Runner{Engine: m, Dir: a.renewals(), Tell: a.watchSteps()}
	if f.dryRun {
		plan, err := r.Plan(ctx, f.request)
		if err != nil {
			return err
		}
		return a.printPlan(plan)
	}
	result, err := r.Run(ctx, f.request)
	if err != nil && result.Outcome == "" {
		return err
	}
	return errors.Join(a.printRenewal(result), err)
}

// sayRecovered in a sentence, where no JSON was asked for.
func (a *app) sayRecovered(r renew.Result) error {
	if a.json {
		return nil
	}
	return a.sayRenewal(r)
}

func (a *app) recoverRenewals(ctx context.Context, f renewFlags) error {
	all := []renew.Result{}
	var failed error
	list, done, err := f.makers.all()
	if err != nil {
		return err
	}
	defer done()
	for _, m := range list {
		r := &renew.Runner{Engine: m, Dir: a.renewals(), Tell: a.watchSteps()}
		results, err := r.Recover(ctx)
		all, failed = append(all, results...), errors.Join(failed, err)
	}
	elsewhere, err := renew.Elsewhere(a.renewals(), list)
	failed = errors.Join(failed, err)
	for _, text := range elsewhere {
		a.say("note: %s", oneLine(text))
	}
	if a.json {
		failed = errors.Join(a.printJSON(all), failed)
	} else if len(all) == 0 && failed == nil && len(elsewhere) == 0 {
		a.say("nothing was left")
	}
	for _, result := range all {
		// That one was undone is what was asked for.
		if err := a.sayRecovered(result); err != nil {
			return err
		}
		if result.Outcome == renew.Broken || result.Hint != "" {
			failed = errors.Join(failed, a.renewalFailed(result))
		}
	}
	return failed
}
