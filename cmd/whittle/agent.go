// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/docker"
	"github.com/whittle-sec/whittle/internal/engine/oci"
	"github.com/whittle-sec/whittle/internal/engine/podman"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/store"
)

func newAgent(a *app) *cobra.Command {
	var f agentFlags
	var verbose bool
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "learn from every container of this host, and report what is refused",
		Long: `Run the node daemon. It notices containers through Podman's socket, and, from their very first call on, through the OCI
hooks that --hooks-dir writes. It ends at SIGTERM or SIGINT, when everything that was learned is stored.`,
		Example: `  sudo whittle agent
  sudo whittle agent --hooks-dir /etc/containers/oci/hooks.d    # and: podman run …
  sudo whittle agent --mode auto                                # after: whittle install --engine podman`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			var engines []engine.Engine
			if f.podman != "" {
				p := podman.New(f.podman)
				defer p.Close()
				engines = append(engines, p)
			}
			if f.docker != "" {
				d := docker.New(f.docker)
				defer d.Close()
				engines = append(engines, d)
			}
			return a.runAgent(ctx, logger(a.talk, verbose), engines, f)
		},
	}
	cmd.Flags().StringVar(&f.podman, "podman", podman.DefaultSocket, "`PATH` of Podman's socket; empty for none")
	cmd.Flags().StringVar(&f.docker, "docker", "", "`PATH` of Docker's socket; empty for none")
	cmd.Flags().StringVar(&f.hooks, "hooks-dir", "", "write OCI hooks into `DIR` while it runs, for podman --hooks-dir")
	cmd.Flags().StringVar(&f.mode, "mode", string(api.ModeLearn), "what is done with workloads for which no `MODE` was set: "+
		"learn, shadow, enforce, or auto, which goes from one to the next by itself")
	cmd.Flags().DurationVar(&f.shadow, "shadow-time", 10*time.Minute, "how long a workload in auto stays in shadow without a call "+
		"that would have been refused, before it is enforced")
	cmd.Flags().BoolVar(&f.panel, "panel", true, "let the panel of judges decide about calls that are not in a policy; without it they are refused")
	cmd.Flags().DurationVar(&f.ask, "ask", 0, "how long a call that the panel cannot decide waits for whittle judge allow or deny, before it is "+
		"refused; 0: it is refused at once")
	cmd.Flags().StringVar(&f.corpus, "corpus", "", "judge by the recorded services of this `FILE` instead of those that whittle came with")
	cmd.Flags().StringVar(&f.renew, "renew", renewTell, "what is done with containers that need another filter than they have: tell says so "+
		"in the journal, auto lets a successor take over, at most once an hour for each")
	_ = cmd.RegisterFlagCompletionFunc("renew", cobra.FixedCompletions([]string{renewAuto, renewTell}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"auto", "learn", "shadow", "enforce", "off"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&verbose, "debug", false, "log what a developer would want to know")
	return cmd
}

func logger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// agentFlags of the command.
type agentFlags struct {
	podman, docker, hooks, mode string
	shadow                      time.Duration
	panel                       bool
	ask                         time.Duration
	corpus                      string
	renew                       string
}

// What the agent does by itself about containers that run under an older policy than they have.
const (
	renewAuto = "auto"
	renewTell = "tell"
)

// runAgent opens what the agent needs, cheapest first: what cannot work is known before anything is changed.
func (a *app) runAgent(ctx context.Context, log *slog.Logger, engines []engine.Engine, f agentFlags) (err error) {
	if !slices.Contains(api.WorkloadModes, api.WorkloadMode(f.mode)) {
		return hint.Add(fmt.Errorf("there is no mode %q", f.mode), "the modes are auto, learn, shadow, enforce and off")
	}
	if f.renew != renewAuto && f.renew != renewTell {
		return hint.Add(fmt.Errorf("unknown --renew %q", f.renew), "it is auto or tell")
	}
	if os.Geteuid() != 0 {
		return hint.Add(errors.New("the agent needs root"), "sudo whittle agent; what else it needs is shown by whittle doctor")
	}
	manager := managerFromEnvironment(log)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The agent's own memory is small and its garbage is large (traces come every two seconds): collect early, to stay
	// below 40 MB beside what the programs and their maps take.
	debug.SetGCPercent(40)
	listener, err := api.Listen(a.socket)
	if err != nil {
		return err
	}
	defer listener.Close() // for the errors below; closing it twice does no harm
	db, err := openStore(a.state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	observer, err := kernel.Open(log)
	if err != nil {
		return withDoctor(err)
	}
	defer func() { err = errors.Join(err, observer.Close()) }()
	c := agent.Defaults()
	c.Observer, c.Store, c.Engines, c.Listener = observer, agent.Stored{Store: db}, engines, listener
	c.Version, c.Log = version, log
	if err = a.abilities(&c, log, engines, f); err != nil {
		return err
	}
	if c.State, err = filepath.Abs(a.state); err != nil {
		return fmt.Errorf("find the state directory: %w", err)
	}
	daemon, err := agent.New(c)
	if err != nil {
		return err
	}
	if f.hooks != "" {
		// Last, when nothing else can fail: an agent that does not start must not touch those of one that runs.
		remove, err := a.writeHooks(f.hooks)
		if err != nil {
			return err
		}
		defer remove()
	}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		manager.watch(ctx, func(ctx context.Context) error { _, err := daemon.Status(ctx); return err })
	}()
	err = daemon.Run(ctx)
	cancel()
	<-watching
	return err
}

// abilities of an agent beyond learning.
func (a *app) abilities(c *agent.Config, log *slog.Logger, engines []engine.Engine, f agentFlags) (err error) {
	if c.Supervising, err = a.supervising(log, f); err != nil {
		return err
	}
	if c.Judging, err = judging(f); err != nil {
		return err
	}
	c.Moving, err = a.moving(engines, f)
	return err
}

// openStore for the agent. Another agent with the same directory is called by its name.
func openStore(dir string) (*store.Store, error) {
	db, err := store.Open(dir, time.Now)
	var locked *store.LockedError
	if errors.As(err, &locked) && locked.PID != 0 {
		return nil, api.Running(locked.PID)
	}
	return db, err
}

// withDoctor points to the command that finds out what is wrong.
func withDoctor(err error) error {
	if err == nil || hint.Of(err) != "" {
		return err
	}
	return hint.Add(err, "whittle doctor says what this host lacks")
}

// writeHooks for the engine's --hooks-dir; remove takes them away again. Without an agent a hook does nothing, and one whose
// executable is gone keeps every container from starting.
func (a *app) writeHooks(dir string) (remove func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this executable: %w", err)
	}
	socket, err := filepath.Abs(a.socket)
	if err != nil {
		return nil, fmt.Errorf("find the socket: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the hooks' directory: %w", err)
	}
	var written []string
	remove = func() {
		for _, name := range written {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				a.say("the hook %s is left: %v", name, err)
			}
		}
	}
	for name, text := range oci.HookConfig(self, socket) {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, text, 0o644); err != nil {
			remove()
			return nil, fmt.Errorf("write a hook: %w", err)
		}
		written = append(written, name)
	}
	return remove, nil
}
