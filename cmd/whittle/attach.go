// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
)

func newAttach(a *app) *cobra.Command {
	var r api.AttachRequest
	var mode string
	cmd := &cobra.Command{
		Use:   "attach CONTAINER|PID",
		Short: "bring a running container under its policy, without a restart",
		Long: `Put the filter of its workload's policy into every process of a running container, of any engine or none. The agent
answers the calls that are held from then on. A process that is in no container is given by its number: it and its descendants get
the filter. A number is always a process: name a container whose ID begins with digits only by its name.

A filter stays until the processes end. --dry-run says what would happen, and changes nothing.`,
		Example: `  sudo whittle attach --dry-run web
  sudo whittle attach web --mode shadow`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeContainers,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if r.Container, r.PID, err = containerOrPID(args[0]); err != nil {
				return err
			}
			switch r.Mode = api.WorkloadMode(mode); r.Mode {
			case "", api.ModeShadow, api.ModeEnforce:
			default:
				return usageError{hint.Add(fmt.Errorf("unknown mode %q", mode), "--mode is shadow or enforce; without it the workload keeps its mode")}
			}
			client := api.NewClient(a.socket)
			defer client.Close()
			done := a.progress("attaching to " + oneLine(args[0]))
			result, err := client.Attach(cmd.Context(), r)
			done()
			if err != nil {
				return whatRuns(err)
			}
			text, numbers := attachedText(result)
			return a.attached(result, text, numbers, "attach "+shellWord(args[0]))
		},
	}
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "say what would happen, and change nothing")
	cmd.Flags().StringVar(&mode, "mode", "", "also set the mode of the workload: shadow or enforce")
	completeFlag(cmd, "mode", string(api.ModeShadow), string(api.ModeEnforce))
	return cmd
}

// containerOrPID: what is written in digits is a process.
func containerOrPID(word string) (container string, pid int, err error) {
	if word == "" {
		return "", 0, usageError{errors.New("the name of the container is empty")}
	}
	for _, r := range word {
		if r < '0' || r > '9' {
			return word, 0, nil
		}
	}
	n, err := strconv.ParseInt(word, 10, 32)
	if err != nil || n == 0 {
		return "", 0, usageError{fmt.Errorf("%s is not the number of a process", oneLine(word))}
	}
	return "", int(n), nil
}

// whatRuns points to the lists, where the agent has nothing better to say.
func whatRuns(err error) error {
	if errors.Is(err, api.ErrNotFound) && hint.Of(err) == "" {
		return hint.Add(err, "whittle status shows the containers that run, whittle policy list the workloads that were learned")
	}
	return err
}

// attachedText says what holds from now on: one sentence, and the numbers.
func attachedText(r api.AttachResult) (text, numbers string) {
	verb := "runs"
	if r.DryRun {
		verb = "would run"
	}
	text = fmt.Sprintf("%s %s under the policy of %s", oneLine(r.Container), verb, oneLine(r.Workload))
	if r.Mode != "" {
		text += ", in " + oneLine(string(r.Mode))
	}
	return text, fmt.Sprintf("the kernel lets %s pass; %d more are held and allowed; %s", count(r.Open, "call"), r.Held, others(r.Mode))
}

// others are the calls that the policy does not allow.
func others(m api.WorkloadMode) string {
	switch m {
	case api.ModeEnforce:
		return "others are refused"
	case api.ModeShadow:
		return "others are counted, and let through"
	case "":
		return "others are answered as the workload's mode says"
	}
	return "others are let through"
}

// attached prints the result of an attach or a seal. It is an error when a process was missed: it goes on unprotected.
func (a *app) attached(r api.AttachResult, text, numbers, again string) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else if err := a.printAttached(r, text, numbers); err != nil {
		return err
	}
	for _, w := range r.Warnings {
		a.say("warning: %s", oneLine(w))
	}
	missed, privileges := 0, 0
	for _, p := range r.Processes {
		if p.Problem != "" {
			missed++
		}
		if p.NoNewPrivileges {
			privileges++
		}
	}
	if privileges > 0 {
		was := "was"
		if r.DryRun {
			was = "would be"
		}
		a.say("warning: no_new_privs %s set in %s: no program that they start gains privileges by setuid or file capabilities",
			was, countProcesses(privileges))
	}
	if r.Complete {
		return nil
	}
	has := "has"
	if r.DryRun {
		has = "would have"
	}
	err := fmt.Errorf("not complete: %d of %s of %s %s no filter", missed, countProcesses(len(r.Processes)), oneLine(r.Container), has)
	if missed == 0 {
		err = fmt.Errorf("not complete: not every process of %s was found", oneLine(r.Container))
	}
	return hint.Add(err, "see what is said of each, and try again: sudo "+a.command(again))
}

func countProcesses(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

func (a *app) printAttached(r api.AttachResult, text, numbers string) error {
	w := a.table()
	head := "PID\tCOMMAND\tTHREADS\tPAUSED\tHOW"
	for _, p := range r.Processes {
		if head != "" {
			fmt.Fprintln(w, head)
			head = ""
		}
		how, paused := oneLine(p.How), "-"
		if p.Problem != "" {
			how = "NO FILTER: " + oneLine(p.Problem)
		}
		if p.Pause > 0 {
			paused = short(p.Pause)
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\n", p.PID, oneLine(p.Comm), p.Threads, paused, how)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case r.DryRun:
		text += ". Nothing was changed"
	case r.Paused > 0:
		text += fmt.Sprintf(". Paused for %s in all", short(r.Paused))
	}
	_, err := fmt.Fprintf(a.out, "%s.\n  %s\n", text, numbers)
	return err
}

// short duration: three digits are enough for a person.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// completeContainers that run.
func (a *app) completeContainers(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	client := api.NewClient(a.socket)
	defer client.Close()
	s, err := client.Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, c := range s.Containers {
		names = append(names, oneLine(c.Name))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
