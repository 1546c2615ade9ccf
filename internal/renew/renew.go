// SPDX-License-Identifier: Apache-2.0

// Package renew lets a successor take over from a running container, so that whoever asks the service notices as little as
// possible: it chooses how, makes each step after it was written down, and goes back to the predecessor when the successor
// does not get ready. It moves no packet itself (packages traffic and gate do) and knows no engine but as a Maker.
package renew

import (
	"net/netip"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// Strategy says where new connections are while one container ends and the other begins.
type Strategy string

const (
	// Overlap has both run at once; the successor gets new connections from the moment it is ready.
	Overlap Strategy = "overlap"
	// Socket has systemd restart the container's unit; new connections wait in the unit's socket, which is systemd's.
	Socket Strategy = "socket"
	// Hold stops, then starts; new connections wait in a socket beside the service's, in a network that stays.
	Hold Strategy = "hold"
	// Gate stops, then starts; new connections wait at the host, because the container's network ends with it.
	Gate Strategy = "gate"
	// Restart stops, then starts; nothing waits. Only for who asks for it.
	Restart Strategy = "restart"
)

// Strategies, the least noticeable first.
var Strategies = []Strategy{Overlap, Socket, Hold, Gate, Restart}

// Writers says whether two instances may run on the same volumes.
type Writers string

const (
	WritersGuessed Writers = ""     // a volume that can be written to means one
	WritersOne     Writers = "one"  // never two at once
	WritersMany    Writers = "many" // the service is made for it
)

// Retire says what becomes of the predecessor once the successor serves.
type Retire string

const (
	RetireRemove Retire = "" // it is stopped and removed
	RetireKeep   Retire = "keep"
)

// Request of a renewal.
type Request struct {
	Container string         `json:"container"` // name or id of the one that serves
	Changes   engine.Changes `json:"changes"`   // of the successor that is made; its Name is chosen here
	// Successor is an existing container, stopped, that takes over. Nothing is made or renamed then.
	Successor string `json:"successor,omitempty"`
	// Ports that the predecessor must have and the successor gets; nil: all that it listens on. Whoever is inside may listen on more.
	Ports    []netip.AddrPort `json:"ports,omitempty"`
	Retire   Retire           `json:"retire,omitempty"`
	Strategy Strategy         `json:"strategy,omitempty"` // "": chosen
	Writers  Writers          `json:"writers,omitempty"`
	Ready    Ready            `json:"ready,omitzero"`
	// Drain is how long the predecessor may take to end by itself; 0: its own stop timeout.
	Drain time.Duration `json:"drain,omitempty"`
	// Patience for the successor to get ready; 0: DefaultPatience.
	Patience time.Duration `json:"patience,omitempty"`
}

// DefaultPatience for a successor to get ready.
const DefaultPatience = time.Minute

// Ready says how it is told that the successor can serve, beyond that it listens on the predecessor's ports. The zero value
// means: its health check if it has one, else that it accepts a connection and, of a protocol that is known, answers in it.
type Ready struct {
	// Port that is asked; 0: the lowest. Ports other than this one are waited for all the same.
	Port uint16 `json:"port,omitempty"`
	// HTTP is a path that must be answered with a status from 200 to 399.
	HTTP string `json:"http,omitempty"`
	// Command is run by a shell on the host until it succeeds. WHITTLE_SUCCESSOR is the successor's id.
	Command string `json:"command,omitempty"`
}

// Plan is how a renewal would be made. Without a Strategy it cannot, and Refused says why.
type Plan struct {
	Container string           `json:"container"`
	ID        string           `json:"id"`
	Strategy  Strategy         `json:"strategy,omitempty"`
	Refused   string           `json:"refused,omitempty"`
	Hint      string           `json:"hint,omitempty"` // what to do about it
	Reasons   []string         `json:"reasons,omitempty"`
	Rejected  []Rejected       `json:"rejected,omitempty"`
	Warnings  []string         `json:"warnings,omitempty"`
	Steps     []Step           `json:"steps,omitempty"`
	Ports     []netip.AddrPort `json:"ports,omitempty"` // that the successor must listen on
	Writers   Writers          `json:"writers"`
	Ready     string           `json:"ready,omitempty"` // how it will be told, in words
	Drain     time.Duration    `json:"drain"`
	Patience  time.Duration    `json:"patience"`
	// Unit of systemd's that starts the successor, its sockets, the file that it names as the profile and that is replaced
	// (if it is), and for how long a restart may take.
	Unit          string        `json:"unit,omitempty"`
	Sockets       []string      `json:"sockets,omitempty"`
	Profile       string        `json:"profile,omitempty"`
	RestartWithin time.Duration `json:"restart_within,omitempty"`
}

// Rejected is a strategy that was not chosen.
type Rejected struct {
	Strategy Strategy `json:"strategy"`
	Why      string   `json:"why"`
}

// Step of a renewal. It is in the journal before it is made.
type Step string

const (
	StepMake    Step = "make"    // the successor is created
	StepProfile Step = "profile" // the unit's profile is replaced
	StepInit    Step = "init"    // everything is done but its exec
	StepForm    Step = "form"    // we stand beside the service's sockets
	StepHold    Step = "hold"    // new connections wait
	StepStop    Step = "stop"    // the predecessor is stopped before the successor starts
	StepStart   Step = "start"   // the successor
	StepRestart Step = "restart" // the unit: both at once
	StepListen  Step = "listen"  // it has the predecessor's ports
	StepReady   Step = "ready"   // it can serve
	StepTurn    Step = "turn"    // new connections go to it: from here on a renewal is finished, not undone
	StepDrain   Step = "drain"   // the predecessor finishes its requests and ends
	StepRelease Step = "release" // we step aside
	StepAway    Step = "away"    // the predecessor gives its name away
	StepName    Step = "name"    // the successor gets it
	StepRemove  Step = "remove"  // the predecessor
	StepBack    Step = "back"    // all of it is undone
)

// State of a step that is reported.
type State string

const (
	Begins State = "begins" // it is in the journal, and not made yet
	Ended  State = "done"
	Failed State = "failed"
)

// Done is a step, as far as it got.
type Done struct {
	Step  Step          `json:"step"`
	State State         `json:"state"`
	At    time.Time     `json:"at"` // when it began
	Took  time.Duration `json:"took,omitempty"`
	Note  string        `json:"note,omitempty"`
}

// Outcome of a renewal.
type Outcome string

const (
	Renewed    Outcome = "renewed"     // the successor serves
	RolledBack Outcome = "rolled-back" // the predecessor does
	Broken     Outcome = "failed"      // neither, or nobody could tell: Why says what holds
)

// Result of a renewal.
type Result struct {
	ID        string `json:"id"`        // of this renewal
	Container string `json:"container"` // the name of the service's container
	// Predecessor and Successor are ids of containers; Successor is empty when none was made.
	Predecessor string        `json:"predecessor"`
	Successor   string        `json:"successor,omitempty"`
	Strategy    Strategy      `json:"strategy"`
	Outcome     Outcome       `json:"outcome"`
	Why         string        `json:"why,omitempty"`
	Hint        string        `json:"hint,omitempty"`
	Serving     string        `json:"serving,omitempty"` // id of the one that serves; "" none, or unknown
	Gap         time.Duration `json:"gap"`               // for how long new connections waited at most
	Took        time.Duration `json:"took"`
	Held        int           `json:"held,omitempty"` // connections that waited when the gap ended
	Steps       []Done        `json:"steps"`
	Warnings    []string      `json:"warnings,omitempty"`
}
