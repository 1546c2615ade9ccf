// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

	"github.com/whittle-sec/whittle/internal/policy"
)

// WorkloadMode is what is done with the containers of a workload.
type WorkloadMode string

const (
	// ModeAuto learns, then goes to shadow when the workload has settled, and to enforce after a time of shadow in which
	// nothing would have been denied.
	ModeAuto WorkloadMode = "auto"
	// ModeLearn observes only.
	ModeLearn WorkloadMode = "learn"
	// ModeShadow decides and counts held calls, and refuses none.
	ModeShadow WorkloadMode = "shadow"
	// ModeEnforce refuses what the policy does not allow.
	ModeEnforce WorkloadMode = "enforce"
	// ModeOff does nothing: the containers are not even observed.
	ModeOff WorkloadMode = "off"
)

// WorkloadModes in the order of what they do.
var WorkloadModes = []WorkloadMode{ModeAuto, ModeLearn, ModeShadow, ModeEnforce, ModeOff}

// ModeChange is a wish. The server writes the caller's name into By where it is empty.
type ModeChange struct {
	Workload string       `json:"workload"` // its ID, name, or the beginning of one
	Mode     WorkloadMode `json:"mode"`
	By       string       `json:"by,omitempty"`
	Why      string       `json:"why,omitempty"`
}

// ModeState of one workload.
type ModeState struct {
	Workload string       `json:"workload"` // ID
	Name     string       `json:"name"`
	Mode     WorkloadMode `json:"mode"` // as set; auto by default
	Now      WorkloadMode `json:"now"`  // what is done at the moment: learn, shadow, enforce or off
	Since    time.Time    `json:"since,omitzero"`
	Set      string       `json:"set"` // by whom: "default", "label", "root" …
	Why      string       `json:"why,omitempty"`
	// ShadowSince is when the present time of shadow began, WouldDeny the calls that enforcing would have refused in it.
	ShadowSince time.Time `json:"shadow_since,omitzero"`
	WouldDeny   uint64    `json:"would_deny,omitempty"`
	Next        string    `json:"next,omitempty"` // what auto waits for: "settles", "42 s more of shadow without a would-deny"
}

// AttachRequest asks for the filter of a policy in the processes of a running container, or in one process and its
// descendants. Exactly one of Container and PID is set.
type AttachRequest struct {
	Container string       `json:"container,omitempty"` // its name, its ID or the beginning of it
	PID       int          `json:"pid,omitempty"`
	DryRun    bool         `json:"dry_run,omitempty"`
	Mode      WorkloadMode `json:"mode,omitempty"` // shadow or enforce, for the workload from now on; "" leaves it as it is
}

// SealRequest asks for a plain filter, without a supervisor, on top of what the container has.
type SealRequest struct {
	Container string `json:"container"`
	DryRun    bool   `json:"dry_run,omitempty"`
}

// AttachedProcess is what was done to one process, or would be.
type AttachedProcess struct {
	PID             int           `json:"pid"`
	Comm            string        `json:"comm"`
	Threads         int           `json:"threads"`
	How             string        `json:"how"`                         // in plain words: "one filter for all threads", "each thread apart"
	NoNewPrivileges bool          `json:"no_new_privileges,omitempty"` // had to be set: setuid programs gain nothing from now on
	Pause           time.Duration `json:"pause,omitempty"`
	Problem         string        `json:"problem,omitempty"` // why it has no filter
}

// AttachResult answers an AttachRequest and a SealRequest. It is not an error when some process could not be reached:
// Complete is false then.
type AttachResult struct {
	Container string            `json:"container"` // name, or "pid N"
	Workload  string            `json:"workload"`  // name
	DryRun    bool              `json:"dry_run,omitempty"`
	Mode      WorkloadMode      `json:"mode,omitempty"` // shadow or enforce; "" for a seal
	Processes []AttachedProcess `json:"processes"`
	Paused    time.Duration     `json:"paused,omitempty"` // from the first process stopped to the last one continued
	Listeners int               `json:"listeners,omitempty"`
	Complete  bool              `json:"complete"`
	Open      int               `json:"open"`              // calls that the kernel lets through
	Held      int               `json:"held,omitempty"`    // calls that the supervisor answers
	Refused   int               `json:"refused,omitempty"` // calls with a name that a seal refuses
	Warnings  []string          `json:"warnings,omitempty"`
}

// GrantRequest adds a call to a policy, or takes it away, on a person's word.
type GrantRequest struct {
	Workload string         `json:"workload"` // its ID, name, or the beginning of one
	Call     string         `json:"call"`     // NAME or ABI:NAME
	Allow    bool           `json:"allow"`
	Phases   []policy.Phase `json:"phases,omitempty"` // of what is allowed; all when empty. A call is denied in all
	By       string         `json:"by,omitempty"`
	Why      string         `json:"why,omitempty"`
}

// GrantResult is what became of the policy.
type GrantResult struct {
	Workload   string          `json:"workload"` // ID
	Name       string          `json:"name"`
	Version    int             `json:"version"`
	Changes    []policy.Change `json:"changes"`              // none when the policy said so already
	Containers []string        `json:"containers,omitempty"` // names of the supervised ones that it holds for from now on
	Notes      []string        `json:"notes,omitempty"`      // "web runs under a static profile: export again and restart it"
}

// Supervision of a container whose held calls the agent answers, or that was sealed.
type Supervision struct {
	How        string       `json:"how"`  // "start": its engine started it under the filter; "attach", "seal"
	Mode       WorkloadMode `json:"mode"` // shadow or enforce
	Since      time.Time    `json:"since"`
	Listeners  int          `json:"listeners"`
	Open       int          `json:"open"` // calls in the present phase that the kernel lets through
	Held       int          `json:"held"` // calls in the present phase that are allowed when asked for
	Phase      policy.Phase `json:"phase"`
	PhaseSince time.Time    `json:"phase_since"`
	Calls      uint64       `json:"calls"` // held calls that were answered
	WouldDeny  uint64       `json:"would_deny,omitempty"`
	Denied     uint64       `json:"denied,omitempty"`
	Refusals   []HeldLine   `json:"refusals,omitempty"` // the newest first, at most 50
	Attested   time.Time    `json:"attested,omitzero"`  // when the filters were last read back from the kernel
	// Attestation is "as intended: 3 processes", or what is not: then Deviates is set.
	Attestation string `json:"attestation,omitempty"`
	Deviates    bool   `json:"deviates,omitempty"`
	Sealed      bool   `json:"sealed,omitempty"`
}

// HeldLine is a held call that was refused, or would have been, and how often.
type HeldLine struct {
	ABI    string       `json:"abi"`
	Call   string       `json:"call"`
	Lane   string       `json:"lane"`
	Role   string       `json:"role,omitempty"`
	Phase  policy.Phase `json:"phase"`
	Errno  int32        `json:"errno"`
	Count  uint64       `json:"count"`
	Last   time.Time    `json:"last"`
	Comm   string       `json:"comm"` // who asked last
	PID    int          `json:"pid"`
	Why    string       `json:"why"`
	Shadow bool         `json:"shadow,omitempty"` // it was let through: nothing is refused in shadow
}

// What a Backend may do beside, each found by assertion. Until it does, the answer is ErrNotFound. The server lets root and
// the agent's own user change things, and members of the group see them.
type (
	// ModeLister tells the modes of all workloads, or of one when ref is not empty.
	ModeLister interface {
		Modes(ctx context.Context, ref string) ([]ModeState, error)
	}
	// Moder sets a mode. Running containers have it when SetMode returns.
	Moder interface {
		SetMode(ctx context.Context, by Peer, c ModeChange) (ModeState, error)
	}
	// Attacher brings running processes under supervision.
	Attacher interface {
		Attach(ctx context.Context, by Peer, r AttachRequest) (AttachResult, error)
	}
	// Sealer stacks a plain filter.
	Sealer interface {
		Seal(ctx context.Context, by Peer, r SealRequest) (AttachResult, error)
	}
	// Granter changes a policy by hand. Supervised containers have it when Grant returns.
	Granter interface {
		Grant(ctx context.Context, by Peer, g GrantRequest) (GrantResult, error)
	}
)

// Modes of all workloads, or of the one that ref names.
func (c *Client) Modes(ctx context.Context, ref string) (m []ModeState, err error) {
	return m, c.get(ctx, "modes", oneParam("workload", ref), &m)
}

// SetMode of a workload.
func (c *Client) SetMode(ctx context.Context, m ModeChange) (out ModeState, err error) {
	return out, c.ask(ctx, "modes", m, &out)
}

// Attach to a running container or process.
func (c *Client) Attach(ctx context.Context, r AttachRequest) (out AttachResult, err error) {
	return out, c.ask(ctx, "attach", r, &out)
}

// Seal a running container.
func (c *Client) Seal(ctx context.Context, r SealRequest) (out AttachResult, err error) {
	return out, c.ask(ctx, "seal", r, &out)
}

// Grant a call to a workload, or take it away.
func (c *Client) Grant(ctx context.Context, g GrantRequest) (out GrantResult, err error) {
	return out, c.ask(ctx, "grants", g, &out)
}
