// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/engine/podman"
)

// answer of a check. The zero answer is that nobody could tell, which is never read as yes.
type answer string

const (
	unclear answer = "unclear"
	yes     answer = "yes"
	no      answer = "no"
)

// finding of one check.
type finding struct {
	Check  string `json:"check"`
	Answer answer `json:"answer"`
	Detail string `json:"detail,omitempty"`
	Needs  string `json:"needs,omitempty"` // the least kernel or the like, where the answer is no
	Fix    string `json:"fix,omitempty"`
	// Required: without it nothing can be learned.
	Required bool `json:"required"`
}

type check struct {
	name     string
	required bool
	run      func(context.Context, *app) finding
}

// checks in the order in which a person would go through them.
func checks(podmanSocket string) []check {
	return []check{
		{"root", true, checkRoot},
		{"kernel 5.15", true, checkKernel},
		{"BTF", true, checkBTF},
		{"lockdown allows BPF", true, checkLockdown},
		{"BPF programs load", true, checkLoad},
		{"attach and detach", true, checkAttach},
		{"cgroup v2", true, checkCgroup},
		{"seccomp filters", false, checkSeccomp},
		{"seccomp notification", false, checkNotify},
		{"pidfd_getfd", false, checkPidfd},
		{"ptrace", false, checkPtrace},
		{"filters for what runs", false, checkAttachSeccomp},
		{"cgroup freezer", false, checkFreezer},
		{"clock without system calls", false, checkClock},
		{"OCI runtime", false, checkRuntime},
		{"Podman's socket", false, func(ctx context.Context, _ *app) finding { return checkPodman(ctx, podmanSocket) }},
		{"Podman calls whittle", false, checkCalls("podman")},
		{"Docker calls whittle", false, checkCalls("docker")},
		{"containerd calls whittle", false, checkCalls("containerd")},
		{"agent", false, checkAgent},
		{"holder", false, checkHolder},
		{"renewal without refused connections", false, checkTraffic},
		{"renewal of private networks", false, checkGate},
		{"systemd keeps listeners", false, checkFDStore},
		{"group whittle", false, checkGroup},
	}
}

func newDoctor(a *app) *cobra.Command {
	var podmanSocket string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "what this host can and cannot do, and what to do about it",
		Long:  "Check this host. The exit status is 1 if learning is impossible on it, or if that could not be told.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := examine(cmd.Context(), a, checks(podmanSocket))
			var err error
			if a.json {
				err = a.printJSON(all)
			} else {
				err = a.printFindings(all)
			}
			if err == nil && !canLearn(all) {
				a.say("nothing can be learned on this host as it is")
				return exitCode(exitError)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&podmanSocket, "podman", podman.DefaultSocket, "`PATH` of Podman's socket")
	return cmd
}

func examine(ctx context.Context, a *app, list []check) []finding {
	all := make([]finding, 0, len(list))
	for _, c := range list {
		f := c.run(ctx, a)
		f.Check, f.Required = c.name, c.required
		if f.Answer == "" {
			f.Answer = unclear
		}
		all = append(all, f)
	}
	return all
}

// canLearn is false also where a required check could not tell.
func canLearn(all []finding) bool {
	for _, f := range all {
		if f.Required && f.Answer != yes {
			return false
		}
	}
	return true
}

func (a *app) printFindings(all []finding) error {
	w := a.table()
	for _, f := range all {
		detail := oneLine(f.Detail)
		if f.Needs != "" {
			detail += " (needs " + f.Needs + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Answer, f.Check, detail)
		if f.Fix != "" && f.Answer != yes {
			fmt.Fprintf(w, "\t\t→ %s\n", f.Fix)
		}
	}
	return w.Flush()
}
