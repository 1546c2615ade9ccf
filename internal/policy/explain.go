// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Explanation says why a call is allowed or not.
type Explanation struct {
	ABI  syscalls.ABI `json:"abi"`
	Call string       `json:"call"`
	// Allowed to the service in some phase (with the zero Selection), perhaps only with some arguments.
	Allowed bool `json:"allowed"`
	// Errno that the caller gets when it is refused, also for its arguments.
	Errno int32 `json:"errno,omitempty"`
	// Lines are sentences for a person.
	Lines []string `json:"lines"`
	// Evidence, if there is any.
	Evidence *Evidence `json:"evidence,omitempty"`
}

func (e Explanation) String() string { return strings.Join(e.Lines, "\n") }

func (e *Explanation) say(format string, args ...any) {
	e.Lines = append(e.Lines, fmt.Sprintf(format, args...))
}

// Explain why p allows the call or not, in plain words.
func Explain(p Policy, call syscalls.Call) Explanation {
	p = Normal(p)
	e := Explanation{ABI: call.ABI, Call: call.String()}
	e.Allowed = AllowedSet(p, Selection{}, call.ABI).Has(call.Nr)
	calls := p.ABIs[call.ABI]
	if calls == nil {
		e.Errno = ENOSYS
		e.say("%s is refused: the workload was never seen using the %v system calls.", call, call.ABI)
		e.say("Every %v call is answered with ENOSYS (no such call), as on a kernel built without them.", call.ABI)
		explainGaps(&e, p)
		return e
	}
	if ev, ok := calls.Evidence[call.Nr]; ok {
		e.Evidence = &ev
	}
	if syscalls.KernelOwn(call.ABI).Has(call.Nr) {
		explainOwn(&e, call)
	} else if e.Allowed || calls.Exec.Has(call.Nr) {
		explainAllowed(&e, calls, call)
	}
	if e.Evidence != nil {
		explainEvidence(&e, *e.Evidence)
	}
	if !e.Allowed {
		explainRefused(&e, p, call)
	}
	return e
}

func explainOwn(e *Explanation, call syscalls.Call) {
	e.say("%s is allowed always: the kernel or the C library makes it on its own, whether or not it was seen.", call)
}

func explainAllowed(e *Explanation, c *Calls, call syscalls.Call) {
	var phases []string
	for _, phase := range Phases {
		if c.Phases[phase].Has(call.Nr) {
			phases = append(phases, phase.String())
		}
	}
	if len(phases) > 0 {
		e.say("%s is allowed to the service in the %s %s.", call, plural(len(phases), "phase", "phases"), list(phases))
		explainOtherPhases(e, c, call)
	}
	if c.Floor.Has(call.Nr) {
		e.say("%s is in the floor: the container runtime needs it between loading the filter and starting the program, "+
			"so it is allowed in every phase.", call)
	}
	if c.Exec.Has(call.Nr) {
		where := "also in the exec lane"
		if len(phases) == 0 && !c.Floor.Has(call.Nr) {
			where = "in the exec lane only"
		}
		e.say("%s was seen %s: from what was started in the container by exec or a health check.", call, where)
	}
	explainRoles(e, c, call)
	if rules := c.Args[call.Nr]; len(rules) > 0 {
		e.Errno = RefusalErrno(Policy{ABIs: map[syscalls.ABI]*Calls{call.ABI: c}}, call)
		e.say("Only with these arguments: %s. With others it is answered with %s.", ruleWords(rules), errnoName(e.Errno))
	}
}

func explainOtherPhases(e *Explanation, c *Calls, call syscalls.Call) {
	var others []string
	for _, phase := range Phases {
		if !c.Phases[phase].Has(call.Nr) && !c.Phases[phase].Empty() && !c.Floor.Has(call.Nr) {
			others = append(others, phase.String())
		}
	}
	if len(others) > 0 {
		e.say("It was not seen in the %s %s, and a profile of only %s refuses it.",
			plural(len(others), "phase", "phases"), list(others), plural(len(others), "that phase", "those phases"))
	}
}

func explainRoles(e *Explanation, c *Calls, call syscalls.Call) {
	var birth []string
	for role, r := range c.Roles {
		serving := r.Phases[Boot].Union(r.Phases[Run]).Union(r.Phases[Reload]).Union(r.Phases[Stop])
		if r.Birth.Has(call.Nr) && !serving.Has(call.Nr) {
			birth = append(birth, role)
		}
	}
	if slices.Sort(birth); len(birth) > 0 {
		e.say("%s %s it only while starting, before the first wait.", list(birth[:min(len(birth), 4)]),
			plural(len(birth), "makes", "make"))
	}
}

func explainEvidence(e *Explanation, ev Evidence) {
	switch {
	case ev.Count == 0 && ev.Source == "floor" && ev.Reason == "":
		e.say("That is known of the runtime; this workload's own starts did not show it.")
		return
	case ev.Count == 0 && ev.Reason != "":
		e.say("It is there because it was %s: %s.", ev.Source, ev.Reason)
		return
	case ev.Count == 0:
		e.say("It was not seen being made; its source is %q.", ev.Source)
		return
	}
	line := fmt.Sprintf("Seen about %d %s", ev.Count, plural(int(min(ev.Count, 2)), "time", "times"))
	if ev.Runs > 0 {
		line += fmt.Sprintf(" in %d %s", ev.Runs, plural(ev.Runs, "container", "containers"))
	}
	if len(ev.Roles) > 0 {
		line += ", by " + list(ev.Roles)
	}
	e.say("%s.", line)
	e.say("First seen %v and last seen %v after a container's start.", round(ev.FirstSeen), round(ev.LastSeen))
	if ev.Reason != "" {
		e.say("Besides: %s.", ev.Reason)
	}
}

func explainRefused(e *Explanation, p Policy, call syscalls.Call) {
	calls := p.ABIs[call.ABI]
	e.Errno = RefusalErrno(p, call)
	inExec := calls.Exec.Has(call.Nr)
	denied, wasDenied := calls.Denied[call.Nr]
	why, isWithheld := calls.Withheld[call.Nr]
	doubt, isQuarantined := calls.Quarantined[call.Nr]
	switch {
	case isWithheld:
		e.say("%s is refused: it was withheld %s.", call, why)
	case isQuarantined:
		e.say("%s is refused: it was seen while learning, but what was seen is not trusted, so it is quarantined: %s.", call, doubt)
	case inExec:
		e.say("For the service it is refused: %s was never seen there.", call)
	case wasDenied:
		e.say("%s is refused: the workload asked for it %d %s while it was learned and another filter answered %s.",
			call, denied.Count, plural(int(min(denied.Count, 2)), "time", "times"), errnoName(denied.Errno))
	case len(calls.Args[call.Nr]) > 0:
		e.say("%s is refused: no arguments satisfy its rules (%s).", call, ruleWords(calls.Args[call.Nr]))
	default:
		e.say("%s is refused: it was not seen in %d %s.", call, p.Account.Runs,
			plural(p.Account.Runs, "observed container", "observed containers"))
	}
	e.say("%s", errnoWords(p, call))
	explainEquivalents(e, p, call)
	explainGaps(e, p)
	if isQuarantined {
		// By its ID: a name of an image is no word for a shell.
		e.say("A person can allow it: whittle policy allow %s %v:%s", p.Workload.ID(), call.ABI, call)
		return
	}
	if !inExec && !isWithheld {
		e.say("It becomes allowed when the workload is learned again while it does what needs the call.")
	}
}

func errnoWords(p Policy, call syscalls.Call) string {
	switch {
	case call.Nr > syscalls.Last(call.ABI):
		return "The caller gets ENOSYS (no such call): the number is newer than Whittle's table, as on an older kernel."
	case FallsBack(call):
		return "The caller gets ENOSYS (no such call): " + fallbackReasons()[call] + "."
	case RefusalErrno(p, call) == ENOSYS:
		return "The caller gets ENOSYS (no such call), the answer that it was seen to live with."
	}
	return "The caller gets EPERM (operation not permitted)."
}

func explainEquivalents(e *Explanation, p Policy, call syscalls.Call) {
	others := syscalls.Equivalents(call)
	if call.Nr < syscalls.MaxNr {
		others.Remove(call.Nr)
	}
	others = others.Intersect(AllowedSet(p, Selection{}, call.ABI))
	if names := others.Names(call.ABI); len(names) > 0 {
		e.say("The same can be done with %s, which %s allowed.", list(names), plural(len(names), "is", "are"))
	}
}

func explainGaps(e *Explanation, p Policy) {
	switch {
	case len(p.Partial) > 0:
		e.say("The policy is partial, so the call may have been missed: %s.", strings.Join(p.Partial, reasonSeparator))
	case !p.Complete:
		e.say("The policy is partial, so the call may have been missed.")
	}
}

func ruleWords(rules []ArgRule) string {
	var and []string
	for i := 0; i < len(rules); {
		var or []string
		index := rules[i].Index
		for ; i < len(rules) && rules[i].Index == index; i++ {
			or = append(or, rules[i].String())
		}
		if more := len(or) - 8; more > 0 {
			or = append(or[:8], fmt.Sprintf("%d more", more))
		}
		and = append(and, strings.Join(or, " or "))
	}
	return strings.Join(and, ", and ")
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
