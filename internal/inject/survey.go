// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Report is what Survey found.
type Report struct {
	Freezer   bool       `json:"freezer"` // the container can be stopped as a whole
	Frozen    bool       `json:"frozen"`  // it is stopped already
	Prospects []Prospect `json:"processes"`
	Problems  []string   `json:"problems,omitempty"`
}

// Prospect is one process as Survey found it.
type Prospect struct {
	PID        int          `json:"pid"`
	Start      uint64       `json:"start"`
	Name       string       `json:"name"` // as the process calls itself: hostile
	ABI        syscalls.ABI `json:"abi"`
	Threads    []Thread     `json:"threads"`
	NoNewPrivs bool         `json:"no_new_privs"`
	Tracer     int          `json:"tracer,omitempty"`
	Works      bool         `json:"works"`
	How        string       `json:"how,omitempty"` // as Process.How
	Why        string       `json:"why,omitempty"` // what stands against it, or has to be known
}

// Thread of a Prospect.
type Thread struct {
	TID     int    `json:"tid"`
	State   string `json:"state"` // one letter, as in /proc/PID/stat
	Filters int    `json:"filters"`
	// Call is what it is blocked in, "" when it runs.
	Call string `json:"call,omitempty"`
	// Refused says that the program would not let Call restart after the stop.
	Refused bool `json:"refused,omitempty"`
}

// Survey says what Run would find and do. It only reads /proc and stops nothing. allowed says whether the program lets a
// call through at once.
func Survey(r Request, allowed func(syscalls.Call) bool) (Report, error) { return Report{}, errNotYet }
