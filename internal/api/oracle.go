// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
)

// OracleRequest names a workload's oracle: its hardened twin. The server writes the caller's name into By where it is
// empty. By, Why and Since of the Spec are the backend's to fill in.
type OracleRequest struct {
	Workload string      `json:"workload"` // its ID, name, or the beginning of one; or a running container's name
	Spec     oracle.Spec `json:"spec"`
	// Start enforces at once, from an empty policy where nothing was learned: the mode becomes ModeEnforce.
	Start bool   `json:"start,omitempty"`
	By    string `json:"by,omitempty"`
	Why   string `json:"why,omitempty"`
}

// OracleState is the oracle of one workload.
type OracleState struct {
	Workload string      `json:"workload"` // ID
	Name     string      `json:"name"`     // of the workload
	Spec     oracle.Spec `json:"spec"`
	Strength string      `json:"strength"` // "strong", "medium", "weak"
	// Mode is what is done with the workload now. In ModeEnforce only, an unknown call begins a loop.
	Mode     WorkloadMode `json:"mode,omitempty"`
	Problems []string     `json:"problems,omitempty"` // why no loop could begin now: "the engine has no image ..."
	Notes    []string     `json:"notes,omitempty"`    // what SetOracle did besides
}

// LoopState is what happens to one workload that has an oracle.
type LoopState struct {
	Workload string `json:"workload"` // ID
	Name     string `json:"name"`
	loop.Status
	Since     time.Time   `json:"since,omitzero"`     // in this state
	Cause     string      `json:"cause,omitempty"`    // the call that production asked for, while a loop is under way
	Container string      `json:"container"`          // production's name; "" when none runs
	Oracle    string      `json:"oracle,omitempty"`   // its container's name, while there is one
	Calls     []string    `json:"calls,omitempty"`    // learned in the loop that is under way
	Next      string      `json:"next,omitempty"`     // in plain words: "goes back in 9 s if nothing new is asked for"
	Limits    loop.Limits `json:"limits"`             // what keeps a service out of its oracle
	Problems  []string    `json:"problems,omitempty"` // what needs a person
}

// LoopRecord is one loop, as it is kept.
type LoopRecord = loop.Record

// What a Backend may do with oracles, found as in ModeLister. Only the server's privileged peers change anything.
type (
	// OracleKeeper keeps the oracle of each workload.
	OracleKeeper interface {
		// SetOracle replaces the one that the workload had.
		SetOracle(ctx context.Context, by Peer, r OracleRequest) (OracleState, error)
		// Oracles of all workloads, or of the one that ref names; then ErrNotFound when it has none.
		Oracles(ctx context.Context, ref string) ([]OracleState, error)
		// RemoveOracle takes it away. A loop that is under way ends first: production comes back.
		RemoveOracle(ctx context.Context, by Peer, ref string) error
	}
	// LoopTeller tells of loops, those under way and those that were.
	LoopTeller interface {
		Loops(ctx context.Context, ref string) ([]LoopState, error)
		// LoopHistory of one workload, or of all when ref is empty: the newest, at most limit, oldest first.
		LoopHistory(ctx context.Context, ref string, limit int) ([]LoopRecord, error)
	}
)

// SetOracle of a workload.
func (c *Client) SetOracle(ctx context.Context, r OracleRequest) (out OracleState, err error) {
	return out, c.ask(ctx, "oracles", r, &out)
}

// Oracles of all workloads, or of the one that ref names.
func (c *Client) Oracles(ctx context.Context, ref string) (out []OracleState, err error) {
	return out, c.get(ctx, "oracles", oneParam("workload", ref), &out)
}

// RemoveOracle of a workload.
func (c *Client) RemoveOracle(ctx context.Context, ref string) error {
	return c.post(ctx, "oracles/remove", oracleRemoval{ref})
}

// Loops of all workloads that have an oracle, or of the one that ref names.
func (c *Client) Loops(ctx context.Context, ref string) (out []LoopState, err error) {
	return out, c.get(ctx, "loops", oneParam("workload", ref), &out)
}
