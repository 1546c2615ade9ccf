// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// policyFile, where it exits 101, keeps package scripts from starting what they install (invoke-rc.d(8)).
const policyFile = "/usr/sbin/policy-rc.d"

// Install what is missing of the services' packages. Nothing of it is started on the host.
func Install(ctx context.Context, log io.Writer, all ...Service) (err error) {
	var missing []string
	for _, s := range all {
		for _, name := range s.Packages {
			if Version(ctx, name) == "" && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if f, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755); err == nil { // else it is somebody else's
		defer os.Remove(policyFile)
		if _, err := f.WriteString("#!/bin/sh\nexit 101\n"); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=600"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("install %s: %w", strings.Join(missing, " "), err)
		}
	}
	return nil
}

// Version of an installed package, "" when it is not installed.
func Version(ctx context.Context, name string) string {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name).Output()
	version, ok := strings.CutPrefix(string(out), "installed ")
	if err != nil || !ok {
		return ""
	}
	return version
}
