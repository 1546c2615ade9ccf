// SPDX-License-Identifier: Apache-2.0

// Package corpus holds what real services were recorded to do, and the rules of association mined from it. The recording
// is made by `make corpus`; it is shipped inside the binary. It judges nothing: package judge asks it for rules.
package corpus

import (
	"bytes"
	_ "embed"
	"slices"
	"strings"
	"sync"

	"github.com/whittle-sec/whittle/internal/observe"
)

//go:embed corpus.bin
var shipped []byte

var readShipped = sync.OnceValues(func() (*Corpus, error) { return Read(bytes.NewReader(shipped)) })

// Shipped corpus. It is read once.
func Shipped() (*Corpus, error) { return readShipped() }

// Corpus of recorded services. It is not changed after New, and may be used by many goroutines.
type Corpus struct {
	services []Service
	rules    func() *Rules
}

// Service that was recorded. Calls are sorted names: numbers differ between architectures.
type Service struct {
	Name     string
	Packages []string // "NAME VERSION"
	Arch     string   // of the machine that it ran on
	Kernel   string
	Ops      []string // what was done to it, and worked
	Failed   []string // what was done to it, and did not
	Seconds  float64
	Roles    []Role
	Bursts   []Burst
}

// Role of a service in one stage: all calls that it made there.
type Role struct {
	Exe        string
	Generation uint8
	Stage      observe.Stage
	Calls      []string
}

// Burst is a set of calls that a thread made between two waits, and how often.
type Burst struct {
	Stage observe.Stage
	Calls []string
	Count uint64
}

// New corpus. The order of services, roles and bursts does not matter.
func New(services []Service) *Corpus {
	c := &Corpus{services: slices.Clone(services)}
	for i := range c.services {
		s := &c.services[i]
		s.Roles, s.Bursts = slices.Clone(s.Roles), slices.Clone(s.Bursts)
		slices.SortFunc(s.Roles, Role.compare)
		slices.SortFunc(s.Bursts, Burst.compare)
	}
	slices.SortFunc(c.services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	c.rules = sync.OnceValue(func() *Rules { return mine(c.services) })
	return c
}

// Services that were recorded, by their names. The caller must not change them.
func (c *Corpus) Services() []Service { return c.services }

// Names of the services.
func (c *Corpus) Names() (names []string) {
	for _, s := range c.services {
		names = append(names, s.Name)
	}
	return names
}

// Without is the corpus without what was recorded of some services: nobody is judged by rules mined from itself.
func (c *Corpus) Without(services ...string) *Corpus {
	var left []Service
	for _, s := range c.services {
		if !slices.Contains(services, s.Name) {
			left = append(left, s)
		}
	}
	return New(left)
}

// Rules mined from it, once.
func (c *Corpus) Rules() *Rules { return c.rules() }
