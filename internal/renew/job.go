// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
)

// Job is a renewal that a process of its own makes, so that the death of the one who wants it does not end it.
type Job struct {
	Request Request    `json:"request"`
	Engine  string     `json:"engine"` // "podman", "docker"
	Socket  string     `json:"socket,omitempty"`
	Dir     string     `json:"dir"` // Runner.Dir
	Tell    func(Done) `json:"-"`   // as Runner.Tell; may be nil
}

// RunJob has a new session's process, `exe renew-job`, make the renewal, and waits for it. When ctx is done it returns; the
// renewal goes on to its end, and its result is what the next Recover returns.
func RunJob(ctx context.Context, exe string, j Job) (Result, error) {
	return Result{}, errors.New("not written yet")
}
