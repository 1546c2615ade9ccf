// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine/oci"
	"github.com/whittle-sec/whittle/internal/hint"
)

// newRuntime is an OCI runtime around another, for engines without hooks (Docker, containerd).
func newRuntime(a *app) *cobra.Command {
	real := "runc"
	cmd := &cobra.Command{
		Use:   "runtime [--real NAME|PATH] -- ARGS…",
		Short: "be an OCI runtime around another (called by container engines)",
		Long: `Be the OCI runtime around another: a container that is created starts as the agent wants. Engines that take a runtime's
path and no arguments call whittle under a name that says which one it stands for: whittle-runc, whittle-crun.`,
		Hidden: true,
		Args:   cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := oci.RealRuntime(real)
			if err != nil {
				return err
			}
			return a.beRuntime(cmd.Context(), path, args)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&real, "real", real, "the `RUNTIME` that does the work")
	return cmd
}

// isRuntime tells whether whittle was called as a runtime. The prefix alone is no name.
func isRuntime(called string) bool {
	rest, ok := strings.CutPrefix(filepath.Base(called), oci.WrapperPrefix)
	return ok && rest != ""
}

// runtimeNamed is what main does when whittle was called as whittle-runc. Its arguments are the runtime's, all of them.
func (a *app) runtimeNamed(ctx context.Context, called string, args []string) int {
	c, err := oci.ReadWrapperConfig(called)
	if err == nil {
		a.socket = api.DefaultSocket
		if c.Socket != "" {
			a.socket = c.Socket
		}
		err = a.beRuntime(ctx, c.Runtime, args)
	}
	fmt.Fprintf(a.talk, "whittle: error: %v\n", err) // only where no runtime was executed
	if h := hint.Of(err); h != "" {
		fmt.Fprintf(a.talk, "whittle: hint: %s\n", h)
	}
	return exitError
}

// beRuntime does not return when all is well: the runtime takes this process over, with its pid, its files and its signals.
func (a *app) beRuntime(ctx context.Context, path string, args []string) error {
	environ, err := oci.NoteExec(os.Environ())
	if err != nil {
		return fmt.Errorf("execute %s: %w", path, err)
	}
	if call := oci.ParseCall(args); call.Creates() {
		if err := a.rewriteBundle(ctx, path, call); err != nil {
			call.Warn(a.talk, time.Now(), err)
		}
	}
	if err := syscall.Exec(path, append([]string{path}, args...), environ); err != nil {
		return fmt.Errorf("execute %s: %w", path, err)
	}
	return nil
}

func (a *app) rewriteBundle(ctx context.Context, path string, call oci.Call) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this executable: %w", err)
	}
	socket, err := filepath.Abs(a.socket)
	if err != nil {
		return fmt.Errorf("find the socket: %w", err)
	}
	w := oci.Wrapper{Whittle: self, Socket: socket, Runtime: path}
	w.Prepare = func(ctx context.Context, d oci.Draft) (json.RawMessage, error) {
		profile, err := a.prepare(ctx, d)
		if errors.Is(err, api.ErrNotRunning) {
			return nil, oci.ErrNoAgent
		}
		return profile, err
	}
	return w.Rewrite(ctx, call)
}
