// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// width of a terminal that everybody has.
const width = 100

// planned is a plan as it is printed with --json.
type planned struct {
	Workload string         `json:"workload"` // its ID
	Phases   []plannedPhase `json:"phases"`
	Calls    []plannedCall  `json:"calls"`
}

type plannedPhase struct {
	Phase       string                    `json:"phase"`
	Learned     map[syscalls.ABI][]string `json:"learned"`
	Allowed     map[syscalls.ABI][]string `json:"allowed"`
	Removes     map[syscalls.ABI][]string `json:"removes"`
	Neutralised int                       `json:"neutralised"`
	Inferred    string                    `json:"inferred,omitempty"`
}

type plannedCall struct {
	ABI   syscalls.ABI `json:"abi"`
	Call  string       `json:"call"`
	Place plan.Place   `json:"place"`
	Bulk  bool         `json:"bulk,omitempty"`
	Rate  float64      `json:"rate,omitempty"`
	Cost  float64      `json:"cost,omitempty"`
	Why   string       `json:"why"`
}

func plannedOf(p policy.Policy, pl *plan.Plan) planned {
	out := planned{Workload: p.Workload.ID(), Phases: []plannedPhase{}, Calls: []plannedCall{}}
	for _, c := range pl.Columns() {
		out.Phases = append(out.Phases, plannedPhase{
			Phase: c.Phase.String(), Learned: namesOf(c.Learned), Allowed: namesOf(c.Calls), Removes: namesOf(c.Removes),
			Neutralised: c.Neutralised, Inferred: c.Inferred,
		})
	}
	for _, e := range pl.Entries() {
		out.Calls = append(out.Calls, plannedCall{e.Call.ABI, e.Call.String(), e.Place, e.Bulk, e.Rate, e.Cost, e.Why})
	}
	return out
}

func namesOf(sets map[syscalls.ABI]syscalls.Set) map[syscalls.ABI][]string {
	out := make(map[syscalls.ABI][]string, len(sets))
	for abi, set := range sets {
		out[abi] = set.Names(abi)
	}
	return out
}

// showColumns is the phases side by side as they are enforced on a supervised container.
func showColumns(out io.Writer, pl *plan.Plan) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	columns := pl.Columns()
	row := func(name string, cell func(plan.Column) string) {
		fmt.Fprint(w, name)
		for _, c := range columns {
			fmt.Fprintf(w, "\t%s", cell(c))
		}
		fmt.Fprintln(w)
	}
	size := func(sets map[syscalls.ABI]syscalls.Set) (n int) {
		for _, set := range sets {
			n += set.Len()
		}
		return n
	}
	row("SUPERVISED", func(c plan.Column) string { return strings.ToUpper(c.Phase.String()) })
	row("learned", func(c plan.Column) string { return fmt.Sprint(size(c.Learned)) })
	row("allowed", func(c plan.Column) string { return fmt.Sprint(size(c.Calls)) })
	row("removed", func(c plan.Column) string { return fmt.Sprint(size(c.Removes)) })
	row("CVEs neutralised", func(c plan.Column) string { return fmt.Sprint(c.Neutralised) })
	w.Flush()
	fmt.Fprintln(out, "a process that is starting may besides do what its role was seen to do at birth")
	for i, c := range columns {
		if c.Inferred != "" {
			fmt.Fprintf(out, "%s: %s\n", c.Phase, c.Inferred)
		}
		if i == 0 {
			continue
		}
		for _, abi := range slices.Sorted(maps.Keys(c.Removes)) {
			if list := c.Removes[abi].Names(abi); len(list) > 0 {
				wrapped(out, fmt.Sprintf("%s removes of %s's", c.Phase, columns[i-1].Phase), list)
			}
		}
	}
}

// showRoles is what of the risky calls each role that serves is refused while it does.
func showRoles(out io.Writer, p policy.Policy, pl *plan.Plan) {
	for _, abi := range slices.Sorted(maps.Keys(p.ABIs)) {
		calls := p.ABIs[abi]
		var all syscalls.Set
		for _, set := range calls.Phases {
			all = all.Union(set)
		}
		for _, role := range slices.Sorted(maps.Keys(calls.Roles)) {
			if calls.Roles[role].Phases[policy.Run].Empty() {
				continue
			}
			var refused, kept []string
			for _, name := range all.Names(abi) {
				nr, _ := syscalls.Number(abi, name)
				call := syscalls.Call{ABI: abi, Nr: nr}
				if plan.Critical(call) == "" {
					continue
				}
				if mayServe(pl, role, call, calls.Args[nr]) {
					kept = append(kept, name)
				} else {
					refused = append(refused, name)
				}
			}
			wrapped(out, oneLine(role)+" loses once it serves", refused)
			wrapped(out, oneLine(role)+" keeps of the risky ones", kept)
		}
	}
}

// mayServe reports whether a role may make a call while it serves, with arguments that its rules allow.
func mayServe(pl *plan.Plan, role string, call syscalls.Call, rules []policy.ArgRule) bool {
	var args [6]uint64
	for _, r := range rules {
		if int(r.Index) < len(args) {
			args[r.Index] = r.Value
		}
	}
	asker := plan.Asker{Lane: observe.LaneService, Phase: policy.Run, Role: role}
	return pl.Answer(asker, call, args).Action == policy.Allow
}

// showPlan is what the kernel lets through, what is asked about and what that costs: in short, or call by call.
func showPlan(out io.Writer, p policy.Policy, pl *plan.Plan, long bool) {
	byPlace := make(map[plan.Place][]string)
	var bulk []string
	var cost float64
	var asked, others uint64
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if long {
		fmt.Fprintln(w, "CALL\tPLACE\tA SECOND\tWHY")
	}
	for _, e := range pl.Entries() {
		calls := p.ABIs[e.Call.ABI]
		if !calls.All().Has(e.Call.Nr) && !syscalls.KernelOwn(e.Call.ABI).Has(e.Call.Nr) && !isWithheld(calls, e.Call.Nr) {
			others++
			continue
		}
		name := abiName(e.Call)
		byPlace[e.Place] = append(byPlace[e.Place], name)
		if e.Bulk {
			bulk = append(bulk, name)
		}
		if e.Place == plan.Held {
			cost += e.Cost
			if !e.Bulk {
				evidence := calls.Evidence[e.Call.Nr]
				asked += evidence.Phases[policy.Boot] / uint64(max(evidence.Runs, 1))
			}
		}
		if long {
			planRow(w, name, e)
		}
	}
	w.Flush()
	if long {
		fmt.Fprintln(out)
	}
	wrapped(out, fmt.Sprintf("open %d", len(byPlace[plan.Open])), byPlace[plan.Open])
	wrapped(out, fmt.Sprintf("held %d", len(byPlace[plan.Held])), byPlace[plan.Held])
	wrapped(out, "open while booting, then held", bulk)
	fmt.Fprintf(out, "asking costs %.2g %% of a core while running, and about %d questions in a boot\n", 100*cost, asked)
	fmt.Fprintf(out, "%d calls that are not in the policy are held or shut; what has no name is shut\n", others)
}

// isWithheld by a person or the guard against poisoning.
func isWithheld(c *policy.Calls, nr uint32) bool {
	_, withheld := c.Withheld[nr]
	_, quarantined := c.Quarantined[nr]
	return withheld || quarantined
}

// planRow of one call; what does not fit goes on below.
func planRow(w io.Writer, name string, e plan.Entry) {
	place, rate := e.Place.String(), "·"
	if e.Bulk {
		place = "boot"
	}
	if e.Rate > 0 {
		rate = fmt.Sprintf("%.3g", e.Rate)
		if e.Rate >= 1000 {
			rate = fmt.Sprintf("%.0f", e.Rate)
		}
	}
	for _, line := range fold(strings.Fields(oneLine(e.Why)), " ", width-42) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, place, rate, line)
		name, place, rate = "", "", ""
	}
}

// abiName is the name of a call, with its ABI where that is not the host's.
func abiName(c syscalls.Call) string {
	if c.ABI == native {
		return c.String()
	}
	return c.ABI.String() + ":" + c.String()
}

// wrapped prints a list with a title, indented below it.
func wrapped(out io.Writer, title string, list []string) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(out, title)
	for _, line := range fold(list, ", ", width-2) {
		fmt.Fprintf(out, "  %s\n", line)
	}
}

// fold a list into lines of at most limit characters, where its members allow it. There is at least one line.
func fold(list []string, separator string, limit int) []string {
	lines := []string{""}
	for _, item := range list {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = item
		case len(*last)+len(separator)+len(item) < limit: // there is room for the separator after it
			*last += separator + item
		default:
			*last += strings.TrimRight(separator, " ")
			lines = append(lines, item)
		}
	}
	return lines
}
