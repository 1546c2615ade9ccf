// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// An engine that starts a container again, by its restart policy, does so within these looks.
const (
	restartLook  = 100 * time.Millisecond
	restartLooks = 4
	maxRestarts  = 10
)

// StopForGood stops a container that may have ended by itself just now, and that its engine may be about to start again, whoever
// stops it then: Podman does so.
func StopForGood(ctx context.Context, maker engine.Maker, id string, within time.Duration) error {
	for tries := 0; ; tries++ {
		err := maker.Stop(ctx, id, within)
		if errors.Is(err, engine.ErrUnknownContainer) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := maker.Blueprint(ctx, id)
		if err != nil || b.RestartPolicy == "" || b.RestartPolicy == "no" {
			return nil // it is stopped, and that is all that there is to say of it
		}
		for range restartLooks {
			pause(ctx, restartLook)
			c, err := maker.Inspect(ctx, id)
			if err == nil && c.State.Alive() {
				b.State = c.State
			}
		}
		if !b.State.Alive() {
			return ctx.Err()
		}
		if tries == maxRestarts {
			return fmt.Errorf("its engine started it again %d times", tries)
		}
	}
}
