// SPDX-License-Identifier: Apache-2.0

// Package api is how whittle's commands and hooks talk to the agent: HTTP and JSON over a unix socket, for root and the
// group "whittle" only. It holds no state; whatever it answers comes from a Backend.
package api

import (
	"encoding/json"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/workload"
)

const (
	// DefaultSocket of the agent.
	DefaultSocket = "/run/whittle/whittle.sock"
	// Group whose members may talk to the agent, beside root.
	Group = "whittle"
	// VersionHeader of every answer: the version of the agent.
	VersionHeader = "X-Whittle-Version"
	// MaxBody of a request, in bytes. A policy of every call of four ABIs with its evidence is about 2 MB.
	MaxBody = 8 << 20
)

// Status of the agent.
type Status struct {
	Version    string      `json:"version"`
	PID        int         `json:"pid"`
	State      string      `json:"state"` // its directory
	Started    time.Time   `json:"started"`
	Engines    []string    `json:"engines"`
	Problems   []string    `json:"problems,omitempty"`
	Containers []Container `json:"containers"`
}

// Mode is what the agent does with a container.
type Mode string

const (
	Learning Mode = "learning"
	// Settled containers are still observed, so that their stop is learned too.
	Settled  Mode = "settled"
	Enforced Mode = "enforced" // it runs under a profile that Whittle exported; refused calls are reported
	Known    Mode = "known"    // settled, its stop is known: it is no longer observed
	Unseen   Mode = "unseen"   // it could not be observed; Note says why
)

// Container that runs now.
type Container struct {
	workload.Container
	WorkloadID   string         `json:"workload_id"`
	WorkloadName string         `json:"workload_name"`
	Mode         Mode           `json:"mode"`
	Note         string         `json:"note,omitempty"`
	Since        time.Time      `json:"since"` // observed since
	Late         bool           `json:"late,omitempty"`
	Phase        policy.Phase   `json:"phase"`
	Distinct     int            `json:"distinct"` // calls of the service lane so far
	ByPhase      map[string]int `json:"by_phase,omitempty"`
	Settled      policy.Settled `json:"settled"`
	Partial      []string       `json:"partial,omitempty"`
	Refused      []Refusal      `json:"refused,omitempty"`
	// BootEnd is when booting ended, since the container was added; 0 while it boots. SpeakerBootEnd is where the
	// baseline, SPEAKER's rule, would have put it.
	BootEnd        time.Duration `json:"boot_end,omitempty"`
	SpeakerBootEnd time.Duration `json:"speaker_boot_end,omitempty"`
	// Supervision is nil for a container that nobody supervises.
	Supervision *Supervision `json:"supervision,omitempty"`
}

// Refusal is a call that a filter answered with an error, and how often.
type Refusal struct {
	ABI   string    `json:"abi"`
	Call  string    `json:"call"`
	Lane  string    `json:"lane"`
	Comm  string    `json:"comm"` // who asked last
	PID   int       `json:"pid"`
	Errno int32     `json:"errno"`
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// Summary of a stored policy.
type Summary struct {
	ID       string         `json:"id"`
	Name     string         `json:"name"`
	Image    string         `json:"image"`
	Digest   string         `json:"digest,omitempty"`
	Command  []string       `json:"command"`
	Complete bool           `json:"complete"`
	Partial  []string       `json:"partial,omitempty"`
	Settled  policy.Settled `json:"settled"`
	Runs     int            `json:"runs"`
	ByPhase  map[string]int `json:"by_phase"`
	Version  int            `json:"version"`
	Updated  time.Time      `json:"updated"`

	Quarantined int `json:"quarantined,omitempty"` // calls that a person has to look at
}

// Revision of a policy in its history.
type Revision struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Why     string    `json:"why"`
	Calls   int       `json:"calls"` // distinct, over all lanes and phases

	Complete bool `json:"complete"`
}

// Event of the journal.
type Event struct {
	ID        int64           `json:"id"` // ascending
	Time      time.Time       `json:"time"`
	Kind      string          `json:"kind"`
	Workload  string          `json:"workload,omitempty"` // ID
	Container string          `json:"container,omitempty"`
	Call      string          `json:"call,omitempty"`
	Text      string          `json:"text"`
	Data      json.RawMessage `json:"data,omitempty"` // machine-readable; its shape depends on Kind
}

// EventQuery selects events: those after the ID After, of one workload (its ID) and of one kind where these are given, at most
// Limit of them. These are the newest unless Oldest is set.
type EventQuery struct {
	After    int64
	Limit    int
	Workload string
	Kind     string
	Oldest   bool
}

// Registration is what a hook or an engine's adapter knows of a container.
type Registration struct {
	Container engine.Container `json:"container"`
	// Profile is the container's seccomp section of config.json; empty when it has none.
	Profile json.RawMessage `json:"profile,omitempty"`
	// RuntimeDigest is that of the OCI runtime's executable, where it is known: the runtime lane's calls belong to it.
	RuntimeDigest string `json:"runtime_digest,omitempty"`
}

// Gone tells that a container was deleted.
type Gone struct {
	Engine string `json:"engine"`
	ID     string `json:"id"`
}

// Export records that a profile was handed out: a container that runs under it is enforced, not learned from.
type Export struct {
	Workload    string `json:"workload"` // ID
	Fingerprint string `json:"fingerprint"`
	Format      string `json:"format"`
	Version     int    `json:"version,omitempty"` // of the policy; 0: the newest
}

// problem is the body of every answer that is not 2xx.
type problem struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}
