// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/whittle-sec/whittle/internal/api"
)

// fixHeld is what to type so that the supervisor allows the call. It takes effect at once.
func (a *app) fixHeld(c api.Container, r api.HeldLine) string {
	if r.Lane == "exec" {
		// Grants are for the service: what a debug shell needs must not widen it.
		return fmt.Sprintf("to learn what exec needs: sudo %s, start it again, exec, then sudo %s", a.command("policy mode "+workloadWord(c)+" learn"),
			a.command("policy mode "+workloadWord(c)+" auto"))
	}
	return "to allow it: " + a.allow(c, r.ABI, r.Call, " --phase "+r.Phase.String())
}

// fixStatic is what to do about a call that a plain filter refuses. Filters are never taken off: a new start it has to be.
func (a *app) fixStatic(c api.Container, r api.Refusal) string {
	s := c.Supervision
	switch {
	case s != nil && s.Sealed:
		return "sealed; to allow it from the next start on: " + a.allow(c, r.ABI, r.Call, "")
	case c.Mode == api.Enforced && r.Lane == "exec":
		return "to allow what exec needs: " + a.command("policy export "+workloadWord(c)+" --lane exec") + ", and start it again with that"
	case c.Mode == api.Enforced:
		return fmt.Sprintf("to allow it: %s, then %s, and start it again with that", a.allow(c, r.ABI, r.Call, ""),
			a.command("policy export "+workloadWord(c)))
	}
	return "another filter refused it, not Whittle's: the engine's profile decides that when the container starts"
}

func (a *app) allow(c api.Container, abi, call, more string) string {
	return "sudo " + a.command("policy allow "+workloadWord(c)+" "+shellWord(fullCall(abi, call))+more)
}

// workloadWord names the workload on a command line.
func workloadWord(c api.Container) string {
	if c.WorkloadName == "" {
		return shellWord(c.WorkloadID)
	}
	return shellWord(c.WorkloadName)
}
