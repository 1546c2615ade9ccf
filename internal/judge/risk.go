// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"sync"

	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// risk is what a call may do to whom it is given wrongly.
type risk struct {
	level   Level
	why     string
	cves    int    // that it re-opens
	byArgs  bool   // the arguments made the level what it is
	network bool   // it makes a new way to the network
	doubt   string // why it is quarantined
}

// several CVEs that a call re-opens are worth as much evidence as a change of rights.
const several = 4

// The classes of package plan that are not Grave. Its other classes are.
const (
	startsProcesses = "starts processes"
	signals         = "signals other processes"
	reachesOut      = "makes new ways to the network"
)

func (r risk) vote() Vote {
	if r.level >= Forbidden {
		return Vote{Stance: Veto, Why: r.why}
	}
	points := "points"
	if need[r.level] == 1 {
		points = "point"
	}
	v := Vote{Why: fmt.Sprintf("%v, asks for %d %s: %s", r.level, need[r.level], points, r.why)}
	if r.doubt != "" {
		v.Stance = Against
		v.Why += "; and for one more, as it is quarantined: " + r.doubt
	}
	return v
}

// assess a call for this policy and asker.
func (p *Panel) assess(h *hearing) risk {
	r := p.level(h)
	if h.t != nil && !h.t.service.Has(h.q.Call.Nr) {
		r.doubt = h.t.calls.Quarantined[h.q.Call.Nr]
	}
	return r
}

// level of a call. What nobody can tell anything about is forbidden.
func (p *Panel) level(h *hearing) risk {
	call := h.q.Call
	switch {
	case h.t == nil:
		return risk{level: Forbidden,
			why: fmt.Sprintf("the workload was never seen using the %v calls, and those of another architecture are a way around filters", call.ABI)}
	case call.Nr >= syscalls.MaxNr || !known(call):
		return risk{level: Forbidden, why: "nobody knows what the call does"}
	}
	if why := Never(call); why != "" {
		return risk{level: Forbidden, why: why}
	}
	r := risk{level: Harmless, why: "behind no known vulnerability, and not critical"}
	if class := plan.Critical(call); class != "" {
		r.level, r.why, r.network = h.classLevel(call, class), class, class == reachesOut
		if class == signals {
			r.level, r.why = h.signalling()
			r.byArgs = h.e.Target != NoTarget
		}
	}
	if why := mischief[call.String()]; why != "" {
		r.level, r.why = Sensitive, why
	}
	if look := uses[call.String()]; look != nil {
		if u, ok := look(call.ABI, h.q.Args); ok {
			r.level, r.why, r.byArgs, r.network = u.level, u.why, true, u.network
			if u.network {
				r.level = h.reaching()
			}
			if u.settled || u.level == Forbidden {
				return r
			}
		}
	}
	if u, ok := h.localUse(); ok {
		return risk{level: u.level, why: u.why, byArgs: true}
	}
	if h.q.Arguments && !r.byArgs {
		// Somebody found worth telling apart what we cannot.
		r.level, r.why = max(r.level, Grave), "the arguments are not those that were seen, and nothing is known of these"
	}
	return p.reopening(h, r)
}

// mischief is what is behind no vulnerability that the data knows, which services rarely need and many programs import, and
// which an intruder makes much of. The import alone is not enough for it.
var mischief = map[string]string{
	"link": otherNames, "linkat": otherNames,
	"shmat": sharedMemory, "shmget": sharedMemory, "msgget": sharedMemory, "semget": sharedMemory,
	"splice": aroundCopies, "tee": aroundCopies, "vmsplice": aroundCopies,
	"pidfd_open": otherTasks, "setpriority": otherTasks,
}

const (
	otherNames   = "it gives a file another name, which outlives its own"
	sharedMemory = "it shares memory by a key that others may know"
	aroundCopies = "it moves pages between files without copying them, which kernels got wrong before"
)

func known(call syscalls.Call) bool {
	k, ok := knownCalls()[call.ABI]
	return ok && k.Has(call.Nr)
}

var knownCalls = sync.OnceValue(func() map[syscalls.ABI]syscalls.Set {
	all := make(map[syscalls.ABI]syscalls.Set)
	for _, abi := range syscalls.ABIs {
		all[abi] = syscalls.Known(abi)
	}
	return all
})

func (h *hearing) classLevel(call syscalls.Call, class string) Level {
	switch {
	case class == startsProcesses:
		return Sensitive
	case class == reachesOut && !backdoors[call.String()]:
		return h.reaching()
	}
	return Grave
}

// backdoors are what a server makes at its boot, and when it is told to reload. Nobody but an intruder needs them often.
var backdoors = map[string]bool{"bind": true, "listen": true}

// reaching out is what a service does, if the role has to do with sockets at all. New ways for a role that uses none are
// an intruder's.
func (h *hearing) reaching() Level {
	serves := h.role.all
	if h.role.forked {
		serves = withoutBirths(&h.role, serves)
	}
	switch {
	case h.q.Arguments:
		return Ordinary // the role makes sockets here, if not of this family
	case h.known && !serves.Intersect(networkCalls()[h.q.Call.ABI]).Empty():
		return Sensitive
	}
	return Grave
}

var networkCalls = sync.OnceValue(func() map[syscalls.ABI]syscalls.Set {
	all := make(map[syscalls.ABI]syscalls.Set)
	for _, abi := range syscalls.ABIs {
		var s syscalls.Set
		for _, name := range []string{"accept", "accept4", "connect", "listen", "bind", "recvfrom", "sendto", "getpeername"} {
			if nr, ok := syscalls.Number(abi, name); ok {
				s.Add(nr)
			}
		}
		all[abi] = s
	}
	return all
})

// reopening raises a level by the vulnerabilities that the call would put within reach again.
func (p *Panel) reopening(h *hearing, r risk) risk {
	ids, gated := p.memory.reopened(h.q.Call, h.q.Args)
	r.cves = len(ids)
	switch {
	case !gated:
		return r
	case r.cves == 0:
		if r.level == Harmless {
			r.level, r.why = Ordinary, "behind known vulnerabilities, all of them within reach anyway"
		}
		return r
	case r.cves >= several || r.level >= Sensitive:
		r.level = max(r.level, Grave)
	default:
		r.level = max(r.level, Sensitive)
	}
	why := "re-opens " + ids[0]
	if len(ids) > 1 {
		why += fmt.Sprintf(" and %d more", len(ids)-1)
	}
	if r.why != "" && r.why != "behind no known vulnerability, and not critical" {
		why += "; " + r.why
	}
	r.why = why
	return r
}

var levelWords = []string{"harmless", "ordinary", "sensitive", "grave", "forbidden"}

func (l Level) String() string { return word(levelWords, l) }

// opensDoor reports whether the call makes a way in. Services open theirs when they boot; the ways out that a service takes for the
// first time on the day of a failover are its socket and connect.
func opensDoor(call syscalls.Call) bool {
	name := call.String()
	return name == "bind" || name == "listen"
}
