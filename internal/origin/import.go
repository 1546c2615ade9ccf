// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/elfcalls"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

const (
	// maxObjects that are looked at; a browser maps 200.
	maxObjects = 512
	// heldBytes are read at most while a call is held, of all files together: 5 ms from the page cache.
	heldBytes = 16 << 20
)

// Import tells which object that the thread's process has mapped needs the call. It never waits for what a container
// serves; what is not in the cache yet is read within a bound on bytes. The first object that needs the call is the
// answer. Files that something in the container can have written do not count: Origin tells why.
func (g *Gatherer) Import(tid int, call syscalls.Call) judge.Import {
	p, err := g.open(tid)
	if err != nil {
		return judge.Import{Why: err.Error()}
	}
	defer p.close()
	return g.imports(p, call)
}

func (g *Gatherer) imports(p *process, call syscalls.Call) judge.Import {
	m, err := g.mapped(p)
	if err != nil {
		return judge.Import{Why: err.Error()}
	}
	return m.need(call)
}

// need of a call among what is mapped.
func (m *mapped) need(call syscalls.Call) judge.Import {
	need := syscalls.Equivalents(call)
	for _, o := range m.objects {
		if carrier, symbol := carries(&o.calls, call, need); carrier != judge.None {
			return judge.Import{Carrier: carrier, Object: o.path, Symbol: symbol, Objects: len(m.objects)}
		}
	}
	switch {
	case m.missed > 0:
		return judge.Import{Objects: len(m.objects), Why: fmt.Sprintf("%d of the files could not be read in full: %s", m.missed, m.why)}
	case len(m.objects) == 0:
		return judge.Import{Why: "no file is mapped that came with the container"}
	}
	for _, o := range m.objects {
		if o.calls.Partial != "" && !o.calls.CLibrary {
			// It may well need the call: nothing is to be held against it.
			return judge.Import{Objects: len(m.objects), Why: "what " + o.path + " calls is not fully known: " + o.calls.Partial}
		}
	}
	return judge.Import{Carrier: judge.None, Objects: len(m.objects)}
}

// Warm reads the files that a thread's process has mapped, in full, so that a held call finds them in the cache.
func (g *Gatherer) Warm(tid int) error {
	p, err := g.open(tid)
	if err != nil {
		return err
	}
	defer p.close()
	m, err := g.visit(p, 4*elfcalls.DefaultLimits().Bytes)
	if err == nil && m.missed > 0 {
		err = fmt.Errorf("%d files were not read in full: %s", m.missed, m.why)
	}
	if err != nil {
		return fmt.Errorf("read the files of thread %d: %w", tid, err)
	}
	return nil
}

// mapped is what a process has mapped, from memory where that is possible.
func (g *Gatherer) mapped(p *process) (*mapped, error) {
	if m, ok := g.known(p); ok {
		return m, nil
	}
	return g.visit(p, heldBytes)
}

// known is what a process has mapped, if it was looked at before.
func (g *Gatherer) known(p *process) (*mapped, bool) {
	if key, ok := g.layout(p); ok {
		if m, ok := g.layouts.get(key); ok && time.Since(m.when) < m.lasts() {
			return m, true
		}
	}
	return nil, false
}

// carries tells how a file comes by a call or its equivalent. The C library's own calls are nobody's need.
func carries(c *elfcalls.Calls, call syscalls.Call, need syscalls.Set) (judge.Carrier, string) {
	if c.CLibrary || c.ABI != call.ABI {
		return judge.None, ""
	}
	if names := c.Imports[call.Nr]; len(names) > 0 {
		return judge.Imports, names[0]
	}
	for nr := range need.All() {
		if names := c.Imports[nr]; len(names) > 0 {
			return judge.Imports, names[0]
		}
	}
	if !c.Sites.Intersect(need).Empty() {
		return judge.Contains, ""
	}
	return judge.None, ""
}
