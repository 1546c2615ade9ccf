// SPDX-License-Identifier: Apache-2.0

// Package judge decides about a held call that the plan refuses: a panel of judges, each of which looks at one kind of
// evidence and says in plain words what it makes of it. It gathers no evidence (package origin and the agent do) and
// answers no call. A Case, which is what it is told and what it said, can be judged again from a file.
package judge

import (
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Verdict on a held call. The zero Verdict refuses.
type Verdict uint8

const (
	Refuse Verdict = iota
	Ask            // a person is asked; without one it is refused
	Once           // allowed, and judged again the next time
	Learn          // allowed, and it goes into the policy as inferred
)

// Question is a held call that the plan refuses.
type Question struct {
	Call  syscalls.Call
	Args  [6]uint64
	Lane  observe.Lane
	Phase policy.Phase
	Role  string // "PATH:GENERATION", "" when not known
	Birth bool
	// Refusal is why the plan refuses. Arguments: the call itself may be made then, but not with these arguments.
	// Withheld: a person took it away; the panel never gives it back. What is quarantined is judged as if it had never
	// been seen, and needs a point more.
	Refusal   string
	Novel     bool
	Arguments bool
	Withheld  bool
}

// Evidence that was gathered while the call was held. The zero value is no evidence, which speaks for nothing.
type Evidence struct {
	Origin Origin `json:"origin"`
	Import Import `json:"import"`
	Fleet  Fleet  `json:"fleet"`
	Socket Socket `json:"socket,omitempty"` // see OfSocket
	Target Target `json:"target,omitempty"` // see OfTarget
}

// Class of the memory that a system call's instruction lies in.
type Class uint8

const (
	Unknown   Class = iota
	File            // executable, not writable, of a file of the container's image or a library: the only one that is no veto
	Vdso            // the kernel's own page
	Writable        // of a file, but the mapping is writable or its page was modified
	Foreign         // of a file that anything in the container could have written (tmpfs, /dev/shm, a volume), or that was deleted
	Memfd           // of a file without a name
	Heap            // [heap]
	Stack           // [stack] or another thread's
	Anonymous       // of no file
)

// Origin is where the instruction lies that made the call.
type Origin struct {
	Class   Class  `json:"class"`
	Path    string `json:"path,omitempty"`     // as the container sees it; printable
	BuildID string `json:"build_id,omitempty"` // hexadecimal, "" when the file has none
	Offset  uint64 `json:"offset,omitempty"`   // in the file
	Why     string `json:"why,omitempty"`      // of Unknown, or what more is to be said
}

// Carrier is how an executable object comes by a call.
type Carrier uint8

const (
	NotRead  Carrier = iota // nothing was, or could be, read
	None                    // the objects were read, and none needs the call
	Imports                 // imports a function of the C library that makes it
	Contains                // contains the instruction with the call's number
)

// Import is which mapped executable or library, the C library and the loader apart, needs the call.
type Import struct {
	Carrier Carrier `json:"carrier"`
	Object  string  `json:"object,omitempty"`  // path in the container; printable
	Symbol  string  `json:"symbol,omitempty"`  // the imported function
	Objects int     `json:"objects,omitempty"` // that were read
	Why     string  `json:"why,omitempty"`     // of NotRead
}

// Fleet is what the replicas of the workload did, this one apart.
type Fleet struct {
	Replicas int `json:"replicas,omitempty"` // that ran, or run
	Needed   int `json:"needed,omitempty"`   // of them made the call
}

// Rule of association: who does If also does Then.
type Rule struct {
	If         []string `json:"if"` // names of calls
	Then       string   `json:"then"`
	Support    float64  `json:"support"`    // share of the transactions that have all of it
	Confidence float64  `json:"confidence"` // share of those with If that have Then
	Lower      float64  `json:"lower"`      // 95 % lower bound of Confidence
	Lift       float64  `json:"lift"`
	Of         uint64   `json:"of"`                // transactions
	Sources    []string `json:"sources,omitempty"` // the workloads it holds in, at most 8
}

// Associations are rules mined from other workloads.
type Associations interface {
	// Best is the rule with the highest Lower whose If is within did and whose Then is the call or its equivalent.
	Best(call syscalls.Call, did syscalls.Set) (Rule, bool)
}

// Stance of one judge. The zero Stance says nothing.
type Stance uint8

const (
	Silent Stance = iota
	For
	Against // says what stands against it, and gives nothing
	Veto    // and nothing else counts
)

// Vote of one judge.
type Vote struct {
	Judge  string `json:"judge"` // "phase", "equivalent", "association", "import", "origin", "fleet", "risk"
	Stance Stance `json:"stance"`
	Points int    `json:"points,omitempty"` // For only
	Why    string `json:"why"`
	Rule   *Rule  `json:"rule,omitempty"` // association's
}

// Decision of the panel.
type Decision struct {
	Verdict Verdict  `json:"verdict"`
	Votes   []Vote   `json:"votes"`             // in the order of Names
	Given   int      `json:"given"`             // points
	Needed  int      `json:"needed"`            // points; what the risk asks for, and one more for each vote against
	Why     string   `json:"why"`               // in one line
	Changed []string `json:"changed,omitempty"` // what would have changed the verdict, in plain words
}

// Case is a question with all that was known, and the decision.
type Case struct {
	Workload string   `json:"workload"` // ID
	Question Question `json:"question"`
	Evidence Evidence `json:"evidence"`
	Decision Decision `json:"decision"`
}
