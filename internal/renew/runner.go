// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// ErrBusy means that a renewal of the container is under way.
var ErrBusy = errors.New("the container is being renewed")

// ErrRefused means that the plan has no strategy.
var ErrRefused = errors.New("it cannot be renewed")

// Runner makes renewals. Its fields are set before the first one.
type Runner struct {
	Engine engine.Maker
	Dir    string           // of the journals; it is made when there is none
	Tell   func(Done)       // each step, when it begins and when it has ended; may be nil
	Now    func() time.Time // nil: time.Now
}

// Plan says how a renewal would be made, and changes nothing.
func (r *Runner) Plan(ctx context.Context, q Request) (Plan, error) {
	return Plan{}, errors.New("not written yet")
}

// Run a renewal to its end. What became of it is in the Result, a rollback too; an error means that nothing was changed, or
// that it is not known what holds. A ctx that is done before the successor was given the traffic means going back.
func (r *Runner) Run(ctx context.Context, q Request) (Result, error) {
	return Result{}, errors.New("not written yet")
}

// Recover finishes or undoes what killed processes left. It may be called at any time, also again.
func (r *Runner) Recover(ctx context.Context) ([]Result, error) {
	return nil, errors.New("not written yet")
}
