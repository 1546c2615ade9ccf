// SPDX-License-Identifier: Apache-2.0

package sockethttp

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"github.com/whittle-sec/whittle/internal/engine"
)

// inspectors ask at the same time: one container that is being started must not hold up the list.
const inspectors = 8

// Running describes, by inspect, the containers that "/containers/json" lists and that have a process.
func (c *Client) Running(ctx context.Context, query url.Values, inspect func(context.Context, string) (engine.Container, error)) ([]engine.Container, error) {
	var listed []struct{ ID string }
	if err := c.Get(ctx, "/containers/json", query, &listed); err != nil {
		return nil, fmt.Errorf("list %s's containers: %w", c.Name, err)
	}
	found := make([]engine.Container, len(listed))
	failed := make([]error, len(listed))
	next := make(chan int)
	var wg sync.WaitGroup
	for range inspectors {
		wg.Go(func() {
			for i := range next {
				found[i], failed[i] = inspect(ctx, listed[i].ID)
			}
		})
	}
	for i := range listed {
		next <- i
	}
	close(next)
	wg.Wait()
	var errs []error
	var out []engine.Container
	for i, c := range found {
		switch {
		case errors.Is(failed[i], engine.ErrUnknownContainer): // removed meanwhile
		case failed[i] != nil:
			errs = append(errs, failed[i])
		case c.State.Alive():
			out = append(out, c)
		}
	}
	return out, errors.Join(errs...)
}
