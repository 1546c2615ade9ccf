// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/install"
	"golang.org/x/sys/unix"
)

func newInstall(a *app) *cobra.Command {
	var o install.Options
	cmd := &cobra.Command{
		Use:   "install --engine podman|docker|containerd",
		Short: "make an engine call whittle for every container that it starts",
		Long: `Write the configuration with which every container that the engine starts reaches the agent before its first call: hooks for
Podman, a default OCI runtime around the real one for Docker and for containerd's Kubernetes side. It shows what it changes,
keeps what others have written, and does nothing a second time. Without an agent, containers start as ever.`,
		Example: `  sudo whittle install --engine podman --dry-run
  sudo whittle install --engine docker
  sudo whittle install --engine containerd --root /mnt/image`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.changeEngine(o, install.Install, "installed")
		},
	}
	installFlags(cmd, &o)
	cmd.Flags().StringVar(&o.Whittle, "binary", "", "`PATH` of the executable that the engine is to call; this one")
	return cmd
}

func installFlags(cmd *cobra.Command, o *install.Options) {
	cmd.Flags().StringVar(&o.Engine, "engine", "", "`ENGINE` to configure: podman, docker or containerd")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only show what would be changed")
	cmd.Flags().StringVar(&o.Root, "root", "", "change the files below `DIR`, an image for instance, instead of this machine's")
	if err := cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions(install.Engines, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined above
	}
}

// changeEngine installs or uninstalls, and shows what that changes.
func (a *app) changeEngine(o install.Options, f func(install.Options) (install.Result, error), done string) error {
	if !slices.Contains(install.Engines, o.Engine) {
		err := hint.Add(fmt.Errorf("unknown engine %q", o.Engine), "give --engine podman, docker or containerd")
		return usageError{err}
	}
	var err error
	if o.Root != "" {
		if o.Root, err = filepath.Abs(o.Root); err != nil {
			return fmt.Errorf("find the root directory: %w", err)
		}
	}
	if o.Root == "/" {
		o.Root = ""
	}
	if o.Whittle == "" {
		if o.Whittle, err = os.Executable(); err != nil {
			return fmt.Errorf("find this executable: %w", err)
		}
	}
	if o.Socket, err = filepath.Abs(a.socket); err != nil {
		return fmt.Errorf("find the socket: %w", err)
	}
	r, err := f(o)
	if err != nil {
		if errors.Is(err, unix.EACCES) && os.Geteuid() != 0 {
			return hint.Add(err, "run it with sudo")
		}
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	for _, c := range r.Changes {
		fmt.Fprint(a.out, c)
	}
	switch {
	case len(r.Changes) == 0:
		a.say("nothing to change: %s for %s", done, o.Engine)
	case o.DryRun:
		a.say("nothing was changed; without --dry-run it will be")
	default:
		a.say("%s for %s", done, o.Engine)
	}
	for _, n := range r.Notes {
		a.say("note: %s", n)
	}
	return nil
}
