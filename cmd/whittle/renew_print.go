// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/renew"
)

// doing says what a step does.
var doing = map[renew.Step]string{
	renew.StepMake:    "make the successor",
	renew.StepProfile: "replace the unit's profile",
	renew.StepRestart: "have systemd restart the unit",
	renew.StepInit:    "set it up, all but its start",
	renew.StepForm:    "stand beside the service's sockets",
	renew.StepHold:    "let new connections wait",
	renew.StepStop:    "stop the predecessor, when it has finished its requests",
	renew.StepStart:   "start the successor",
	renew.StepListen:  "wait until it listens",
	renew.StepReady:   "wait until it can serve",
	renew.StepTurn:    "give it the connections",
	renew.StepDrain:   "stop the predecessor, when it has finished its requests",
	renew.StepRelease: "step aside",
	renew.StepAway:    "take the name from the predecessor",
	renew.StepName:    "give it to the successor",
	renew.StepRemove:  "remove the predecessor",
	renew.StepBack:    "go back to the predecessor",
}

// watchSteps says on a terminal what is being done. In a pipe it is quiet.
func (a *app) watchSteps() func(renew.Done) {
	if !isTerminal(a.talk) {
		return nil
	}
	return func(d renew.Done) {
		switch d.State {
		case renew.Begins:
			fmt.Fprintf(a.talk, "whittle: %-56s …", doing[d.Step])
		case renew.Failed:
			fmt.Fprintf(a.talk, " failed after %s\n", short(d.Took))
		default:
			fmt.Fprintf(a.talk, " %s%s\n", short(d.Took), inBrackets(d.Note))
		}
	}
}

func inBrackets(note string) string {
	if note == "" {
		return ""
	}
	return " (" + oneLine(note) + ")"
}

// printPlan is an error where there is no way.
func (a *app) printPlan(p renew.Plan) error {
	if a.json {
		if err := a.printJSON(p); err != nil {
			return err
		}
	} else if _, err := fmt.Fprint(a.out, planText(p)); err != nil {
		return err
	}
	if p.Strategy == "" {
		return hint.Add(fmt.Errorf("%s cannot be renewed: %s", oneLine(p.Container), oneLine(p.Refused)), oneLine(p.Hint))
	}
	return nil
}

func planText(p renew.Plan) string {
	var b strings.Builder
	if p.Strategy != "" {
		fmt.Fprintf(&b, "%s would be renewed by %s. Nothing was changed.\n", oneLine(p.Container), p.Strategy)
	}
	for _, why := range p.Reasons {
		fmt.Fprintf(&b, "  because   %s\n", oneLine(why))
	}
	for _, r := range p.Rejected {
		fmt.Fprintf(&b, "  not       %s: %s\n", r.Strategy, oneLine(r.Why))
	}
	if p.Strategy == "" {
		return b.String()
	}
	fmt.Fprintf(&b, "  ready     when %s, within %s\n", oneLine(p.Ready), p.Patience)
	fmt.Fprintf(&b, "  drain     %s until it is killed\n", p.Drain)
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "  %4d. %-7s %s\n", i+1, s, doing[s])
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "  warning   %s\n", oneLine(w))
	}
	return b.String()
}

// printRenewal is an error where the successor does not serve, or something was left to do.
func (a *app) printRenewal(r renew.Result) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else if r.Outcome == renew.Renewed {
		if err := a.sayRenewal(r); err != nil {
			return err
		}
	}
	if r.Outcome == renew.Renewed && r.Hint == "" {
		return nil
	}
	return a.renewalFailed(r)
}

// sayRenewal in a sentence, with its warnings.
func (a *app) sayRenewal(r renew.Result) error {
	name := oneLine(r.Container)
	text := fmt.Sprintf("%s was renewed by %s in %s; new connections waited for %s at most.\n", name, r.Strategy, short(r.Took), short(r.Gap))
	switch {
	case r.Outcome == renew.RolledBack:
		text = fmt.Sprintf("%s is as it was: %s.\n", name, oneLine(r.Why))
	case r.Outcome == renew.Broken:
		text = ""
	case r.Strategy == renew.Restart:
		text = fmt.Sprintf("%s was restarted in %s; nothing was served for %s.\n", name, short(r.Took), short(r.Gap))
	case r.Gap == 0:
		text = fmt.Sprintf("%s was renewed by %s in %s; no connection waited.\n", name, r.Strategy, short(r.Took))
	}
	for _, w := range r.Warnings {
		a.say("warning: %s", oneLine(w))
	}
	_, err := fmt.Fprint(a.out, text)
	return err
}

func (a *app) renewalFailed(r renew.Result) error {
	name := oneLine(r.Container)
	var err error
	switch r.Outcome {
	case renew.Renewed:
		return hint.Add(fmt.Errorf("%s was renewed, and something is left to do", name), oneLine(r.Hint))
	case renew.RolledBack:
		err = fmt.Errorf("%s was not renewed, and the predecessor serves: %s", name, oneLine(r.Why))
	default:
		err = fmt.Errorf("nobody is known to serve for %s: %s", name, oneLine(r.Why))
	}
	for _, w := range r.Warnings {
		a.say("warning: %s", oneLine(w))
	}
	if r.Hint == "" {
		return err
	}
	return hint.Add(err, oneLine(r.Hint))
}
