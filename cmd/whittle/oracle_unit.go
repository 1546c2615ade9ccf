// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/podman"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/units"
)

// unitFlags of the command.
type unitFlags struct {
	out, podman    string
	quadlet, force bool
}

func newOracleUnit(a *app) *cobra.Command {
	var f unitFlags
	cmd := &cobra.Command{
		Use:   "unit WORKLOAD|CONTAINER",
		Short: "write systemd units of a service and its oracle, of which one runs at a time",
		Long: `Write NAME.service, production, and NAME-oracle.service, its oracle, for a container of Podman that has an oracle. Each
runs podman run with the options that the container was made with. They end each other (Conflicts=), and whatever becomes of
the oracle, production comes back: when it ends, fails, does not start, or has run for the longest time of a loop. The host's
shutdown brings nothing back.

With --out the files are written, and what the oracle needs beside its image; else they are printed. With --quadlet they
are .container files for Podman 4.4 and later. Names and values of environment variables that were given to podman run
are in the files.`,
		Example: `  sudo whittle oracle unit web --out /etc/systemd/system
  sudo whittle oracle unit web --quadlet --out /etc/containers/systemd`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeOracles,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.writeUnits(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.out, "out", "", "write into `DIR`")
	flags.BoolVar(&f.quadlet, "quadlet", false, "as .container files")
	flags.BoolVar(&f.force, "force", false, "overwrite files that whittle did not write")
	flags.StringVar(&f.podman, "podman", podman.DefaultSocket, "`PATH` of Podman's socket")
	return cmd
}

// unitsDir is where units have their oracles write, and the agent looks.
func unitsDir(state string) string { return filepath.Join(state, "units") }

func (a *app) writeUnits(ctx context.Context, ref string, f unitFlags) error {
	client := api.NewClient(a.socket)
	defer client.Close()
	o, err := oneOracle(ctx, client, ref)
	if err != nil {
		return err
	}
	name, longest, err := unitOf(ctx, client, o)
	if err != nil {
		return err
	}
	state, err := filepath.Abs(a.state)
	if err != nil {
		return fmt.Errorf("find the state directory: %w", err)
	}
	dir := filepath.Join(unitsDir(state), name)
	both, needed, err := recipes(ctx, f.podman, name, dir, o)
	if err != nil {
		return err
	}
	both.Longest = longest
	write := both.Units
	if f.quadlet {
		write = both.Quadlets
	}
	files, err := write()
	if err != nil {
		return hint.Add(err, "write the units by hand: docs/timeloops.md has what they need to say")
	}
	if f.out == "" {
		return a.printUnits(files)
	}
	if err := agent.WriteOracle(dir, needed); err != nil {
		return fmt.Errorf("write what the oracle needs: %w", err)
	}
	if err := putUnits(f.out, files, f.force); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(files)
	}
	for _, file := range files {
		if _, err := fmt.Fprintln(a.out, filepath.Join(f.out, file.Name)); err != nil {
			return err
		}
	}
	a.say("next: sudo systemctl daemon-reload && sudo systemctl start %s.service, which replaces the container", name)
	return nil
}

// unitOf an oracle: the name of the container that serves in production, and how long its oracle may.
func unitOf(ctx context.Context, client *api.Client, o api.OracleState) (name string, longest time.Duration, err error) {
	loops, err := client.Loops(ctx, o.Workload)
	if err != nil {
		return "", 0, err
	}
	if len(loops) != 1 || loops[0].Container == "" {
		return "", 0, hint.Add(fmt.Errorf("no container of %s runs", oneLine(o.Name)), "start one with podman run: the units are made like it")
	}
	if name = loops[0].Container; units.CheckName(name) != nil {
		return "", 0, units.CheckName(name)
	}
	if loops[0].State != loop.Production {
		return "", 0, hint.Add(fmt.Errorf("the oracle of %s serves", oneLine(o.Name)), "wait until production is back: "+"whittle loop status")
	}
	return name, max(loops[0].Limits.Visit, time.Minute), nil
}

// recipes of both sides, and what is to be mounted into the oracle from dir.
func recipes(ctx context.Context, socket, name, dir string, o api.OracleState) (both units.Containers, needed []oracle.File, err error) {
	spec := o.Spec
	p := podman.New(socket)
	defer p.Close()
	b, err := p.Blueprint(ctx, name)
	if errors.Is(err, engine.ErrUnknownContainer) {
		err = hint.Add(err, "units can be written for containers of Podman only")
	}
	if err != nil {
		return both, needed, err
	}
	start, err := spec.Changes(oracle.Production{Image: b.Workload.Image, Argv: b.Workload.Command, Env: oracle.Variables(b.Env)}, dir)
	if err != nil {
		return both, needed, err
	}
	made, err := agent.OracleMade(start)
	if err != nil {
		return both, needed, err
	}
	changes := engine.Changes{
		Image: start.Image, Command: start.Command, Entrypoint: start.Entrypoint, Env: start.Env,
		Labels: map[string]string{agent.OracleLabel: o.Workload, agent.OracleMadeLabel: made},
	}
	for _, m := range start.Mounts {
		changes.Mounts = append(changes.Mounts, engine.Mount{Source: m.Source, Destination: m.Destination, ReadOnly: m.ReadOnly})
	}
	stop := b.StopTimeout
	if spec.Drain > 0 {
		stop = spec.Drain
	}
	if both.Production, err = recipe(ctx, p, name, name, engine.Changes{}); err != nil {
		return both, needed, err
	}
	if both.Oracle, err = recipe(ctx, p, name, name+units.Suffix, changes); err != nil {
		return both, needed, err
	}
	both.Production.StopTimeout, both.Oracle.StopTimeout = stop, b.StopTimeout
	// Podman's own ways to restart are not systemd's: what always comes back does so here, too.
	if policy, _, _ := strings.Cut(b.RestartPolicy, ":"); policy == "always" || policy == "unless-stopped" {
		both.Production.Restart = "always"
	}
	// A pull would take time, and what is pulled would be another oracle than the one that was tried.
	both.Oracle.Pull = "never"
	return both, start.Files, nil
}

func recipe(ctx context.Context, p *podman.Podman, like, name string, c engine.Changes) (units.Container, error) {
	r, err := p.Recipe(ctx, like, c)
	if err != nil {
		return units.Container{}, err
	}
	out := units.Container{Podman: r.Program, Name: name, Image: r.Image, Command: r.Command}
	for _, option := range r.Options {
		flag, _, _ := strings.Cut(option, "=")
		if managed, _ := units.Managed(flag); !managed {
			out.Flags = append(out.Flags, option)
		}
	}
	return out, nil
}

func (a *app) printUnits(files []units.File) error {
	if a.json {
		return a.printJSON(files)
	}
	for i, f := range files {
		gap := ""
		if i > 0 {
			gap = "\n"
		}
		if _, err := fmt.Fprintf(a.out, "%s# %s\n%s", gap, f.Name, f.Text); err != nil {
			return err
		}
	}
	a.say("note: nothing was written: --out DIR does that, and makes what the oracle needs")
	return nil
}

// putUnits all or none, as far as that can be known before: none is overwritten that somebody else wrote.
func putUnits(dir string, files []units.File, force bool) error {
	for _, f := range files {
		name := filepath.Join(dir, f.Name)
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look at what is there: %w", err)
		}
		if err == nil && !force && !units.Ours(string(text)) {
			return hint.Add(fmt.Errorf("%s is there, and whittle did not write it", name), "--force overwrites it; or write to another --out and compare")
		}
	}
	for _, f := range files {
		name := filepath.Join(dir, f.Name)
		temp := name + ".whittle-new"
		if err := os.WriteFile(temp, []byte(f.Text), 0o644); err != nil {
			return fmt.Errorf("write the unit: %w", err)
		}
		if err := os.Rename(temp, name); err != nil {
			return errors.Join(fmt.Errorf("write the unit: %w", err), os.Remove(temp))
		}
	}
	return nil
}
