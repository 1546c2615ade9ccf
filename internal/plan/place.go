// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Rates grow with the load, and a service is rarely learned under all that it will get. So a call's share of all calls
// counts too: what every request makes will be as large a share of a busy core as it was of a quiet one.
const (
	// Asking about a critical call is worth more of a core than asking about one that merely passes a gate.
	criticalWorth = 10
	// Below these, in calls a second, a share says nothing.
	leastRate          = 5
	leastTotal         = 100
	leastTotalCritical = 1000
)

// placer decides about the calls of one ABI.
type placer struct {
	o       Options
	abi     syscalls.ABI
	calls   *policy.Calls
	class   *classes
	service syscalls.Set // the service lane's calls, all phases
	all     syscalls.Set // those of every lane
	runs    syscalls.Set // those that it makes while running
	floor   syscalls.Set
	always  syscalls.Set
	total   float64 // calls a second while running, of all ABIs
}

func (pl *placer) place(nr uint32) Entry {
	e := Entry{Call: syscalls.Call{ABI: pl.abi, Nr: nr}}
	evidence := pl.calls.Evidence[nr]
	if pl.service.Has(nr) {
		e.Rate = evidence.Rate
		e.Cost = e.Rate * pl.o.HeldCost.Seconds()
	}
	e.Place, e.Why = pl.decide(nr, e)
	if e.Place == Held && pl.service.Has(nr) && !pl.startsPrograms(nr) {
		if n := perRun(evidence, policy.Boot); n > pl.o.BootCalls {
			e.Bulk = true
			e.Why = fmt.Sprintf("a boot makes it %d times, too often to ask: open until the boot ends; then %s", n, e.Why)
		}
	}
	return e
}

// decide in the order of what counts most.
func (pl *placer) decide(nr uint32, e Entry) (Place, string) {
	c := pl.class
	inPolicy := pl.all.Has(nr)
	withheld, isWithheld := pl.calls.Withheld[nr]
	doubt, isQuarantined := pl.calls.Quarantined[nr]
	switch {
	case c.own.Has(nr):
		return Open, "the kernel or the C library makes it on its own"
	case pl.always.Has(nr):
		if pl.service.Has(nr) || pl.floor.Has(nr) {
			return Open, "in the policy, and runc refuses to hold it"
		}
		return Shut, "not in the policy, and runc refuses to hold it"
	case isWithheld:
		return Held, "withheld " + withheld
	case isQuarantined && !(pl.floor.Has(nr) && pl.atAnyTime(nr)):
		return Held, "quarantined: " + doubt // even what is shut otherwise: it was asked for, and may be again
	case !inPolicy && c.multi.Has(nr):
		return Shut, "not in the policy, and " + multiplexes + ", so that nobody could tell which is asked for"
	case !inPolicy && !c.known.Has(nr):
		return Shut, "has no name"
	case !inPolicy && pl.calls.Denied[nr].Errno == policy.ENOSYS:
		// clone3, whose flags no filter sees: a C library asks for it with each thread, and has another way.
		return Shut, "not in the policy, and another filter said ENOSYS while it was learned"
	case pl.service.Has(nr):
		return pl.decideService(nr, e)
	case pl.floor.Has(nr) && pl.atAnyTime(nr):
		return Open, "harmless, and the container runtime may need it before anybody can be asked"
	case pl.floor.Has(nr):
		return Held, "not the service's: only the container runtime needs it, before the first program starts"
	case inPolicy:
		return Held, "not the service's: only what was started in the container by exec was seen to make it"
	}
	return Held, "not in the policy"
}

func (pl *placer) decideService(nr uint32, e Entry) (Place, string) {
	c := pl.class
	ruled := len(pl.calls.Args[nr]) > 0
	if why := pl.hot(nr, e); why != "" {
		return Open, why
	}
	switch {
	case ruled && c.critical.Has(nr):
		return Held, critical[syscalls.Name(pl.abi, nr)] + ", with some arguments only" + pl.when(nr)
	case pl.atAnyTime(nr):
		return Open, "harmless, and nobody can say when a thread will need it"
	case ruled:
		// Its arguments cost nothing to look at where it is held, and the kernel's bitmap where it is not.
		return Held, "only some arguments are allowed, and it is rare" + pl.when(nr)
	case c.waits.Has(nr) && pl.runs.Has(nr):
		return Open, "threads sleep in it while the service runs"
	case c.critical.Has(nr):
		return Held, critical[syscalls.Name(pl.abi, nr)] + pl.when(nr)
	case pl.calls.Evidence[nr].Source == "inferred":
		return Held, "inferred, for one role: open, it would be for all" + pl.when(nr)
	case c.gated.Has(nr):
		return Held, "known vulnerabilities are reached through it" + pl.when(nr)
	case !c.known.Has(nr):
		return Held, "has no name, so nothing is known of it"
	case pl.runs.Has(nr):
		return Open, "harmless, and used while the service runs"
	}
	if n := pl.lateVolume(nr); n > pl.o.BootCalls {
		return Open, fmt.Sprintf("harmless, and a reload or stop makes it %d times", n)
	}
	return Held, "harmless, but not needed while the service runs" + pl.when(nr)
}

// hot is why holding the call would cost too much, or "".
func (pl *placer) hot(nr uint32, e Entry) string {
	if pl.startsPrograms(nr) {
		return "" // starting a program costs hundreds of times what asking does
	}
	if e.Cost > pl.o.Budget {
		return fmt.Sprintf("hot: holding it would cost %s of a core", percent(e.Cost))
	}
	if pl.total <= 0 || pl.class.harmless.Has(nr) {
		return ""
	}
	budget, least := pl.o.Budget, float64(leastTotal)
	if pl.class.critical.Has(nr) {
		budget, least = budget*criticalWorth, leastTotalCritical
	}
	share := e.Rate / pl.total
	if e.Rate >= leastRate && pl.total >= least && share*pl.o.HeldCost.Seconds() > budget*pl.o.CallCost.Seconds() {
		return fmt.Sprintf("hot: %s of all calls while running, so that its rate grows with the load", percent(share))
	}
	return ""
}

// atAnyTime are calls whose phase says nothing, and that are harmless.
func (pl *placer) atAnyTime(nr uint32) bool {
	return pl.class.harmless.Has(nr) && (pl.class.waits.Has(nr) || pl.class.chance.Has(nr))
}

func (pl *placer) startsPrograms(nr uint32) bool {
	return critical[syscalls.Name(pl.abi, nr)] == startsPrograms
}

// when the service makes a call that is held.
func (pl *placer) when(nr uint32) string {
	var phases []string
	for _, phase := range policy.Phases {
		if pl.calls.Phases[phase].Has(nr) {
			phases = append(phases, phase.String())
		}
	}
	switch {
	case len(phases) == 0:
		return ""
	case slices.Equal(phases, []string{"boot"}):
		return "; boot only"
	}
	return "; in " + strings.Join(phases, ", ")
}

// lateVolume is how often a reload or a stop makes the call.
func (pl *placer) lateVolume(nr uint32) uint64 {
	e := pl.calls.Evidence[nr]
	return max(perRun(e, policy.Reload), perRun(e, policy.Stop))
}

func perRun(e policy.Evidence, phase policy.Phase) uint64 {
	return e.Phases[phase] / uint64(max(e.Runs, 1))
}

func percent(share float64) string { return fmt.Sprintf("%.2g %%", 100*share) }
