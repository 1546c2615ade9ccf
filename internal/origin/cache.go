// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"container/list"
	"sync"

	"github.com/whittle-sec/whittle/internal/elfcalls"
)

// entry is what was read of a file.
type entry struct {
	calls elfcalls.Calls
	cut   bool   // there was more than could be read while a call was held
	err   string // it is no program
}

// cache of which the one not asked for the longest goes first. Values are not written to once they are in it. Files go by
// their identity and not by build id: a hostile file can carry any.
type cache[K comparable, V any] struct {
	mu   sync.Mutex
	max  int
	used *list.List // of cached, the last used in front
	by   map[K]*list.Element
}

type cached[K comparable, V any] struct {
	key   K
	value V
}

func newCache[K comparable, V any](most int) *cache[K, V] {
	return &cache[K, V]{max: most, used: list.New(), by: make(map[K]*list.Element)}
}

func (c *cache[K, V]) get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.by[key]
	if !ok {
		return value, false
	}
	c.used.MoveToFront(e)
	return e.Value.(cached[K, V]).value, true
}

// put replaces what was known.
func (c *cache[K, V]) put(key K, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.by[key]; ok {
		c.used.Remove(old)
	}
	c.by[key] = c.used.PushFront(cached[K, V]{key, value})
	for len(c.by) > c.max {
		oldest := c.used.Back()
		c.used.Remove(oldest)
		delete(c.by, oldest.Value.(cached[K, V]).key)
	}
}
