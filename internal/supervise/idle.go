// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"sync"
)

// idle hands the containers whose last listener hung up to whoever reads out. Each is in it at most once, so it is as
// bounded as the containers are, and workers never wait for its reader.
type idle struct {
	out  chan Container
	wake chan struct{}

	mu      sync.Mutex
	waiting map[Container]struct{}
}

func newIdle() *idle {
	return &idle{out: make(chan Container), wake: make(chan struct{}, 1), waiting: make(map[Container]struct{})}
}

func (i *idle) put(c Container) {
	i.mu.Lock()
	i.waiting[c] = struct{}{}
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// forget a container that has a listener again, or is gone.
func (i *idle) forget(c Container) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.waiting, c)
}

func (i *idle) next() (Container, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for c := range i.waiting {
		delete(i.waiting, c)
		return c, true
	}
	return 0, false
}

// pump moves them to out until ctx is done.
func (i *idle) pump(ctx context.Context) {
	for {
		c, ok := i.next()
		if !ok {
			select {
			case <-i.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case i.out <- c:
		case <-ctx.Done():
			return
		}
	}
}
