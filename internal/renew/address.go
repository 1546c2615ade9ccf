// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// A container with a network of its own has an address there, which the engine gives to whoever starts next. A successor that
// starts when its predecessor has ended can be made with it; engines know no way to ask for it once, so that it stays fixed. Where
// nobody insisted on it, no service is given up for it.

// addressing of the successor that is made.
func addressing(asked engine.Addressing, s Strategy) engine.Addressing {
	if s == Overlap {
		return asked
	}
	return cmp.Or(asked, engine.AddressKeep)
}

// againstAddress: one container at a time has it.
func (c choice) againstAddress() string {
	fixed := slices.ContainsFunc(c.b.Networks, func(a engine.Attachment) bool { return a.Fixed })
	switch {
	case c.b.NetworkKept || c.r.Successor != "":
		return ""
	case c.r.Changes.Address == engine.AddressKeep:
		return "the successor cannot have the address as long as the predecessor does"
	case fixed && c.r.Changes.Address != engine.AddressAny:
		return "its address is fixed, and one container at a time can have it"
	}
	return ""
}

// warnAddress of a network of the container's own.
func (c choice) warnAddress(s Strategy) string {
	another := "the engine may give the successor another address; published ports stay the same"
	if c.r.Successor != "" {
		return another
	}
	fixed := true
	switch addressing(c.r.Changes.Address, s) {
	case engine.AddressAny:
		return another
	case engine.AddressAsMade:
		for _, a := range c.b.Networks {
			fixed = fixed && a.Fixed
		}
	case engine.AddressKeep:
		asks := false
		for _, a := range c.b.Networks {
			fixed = fixed && (a.Fixed || a.Askable)
			asks = asks || !a.Fixed && a.Askable
		}
		if fixed && asks {
			return fmt.Sprintf("the successor is asked for the address %s for good: when it is started again, as after a reboot, and another container has it, it does not start (--address any leaves it to the engine)", list(c.b.Addresses))
		}
	}
	if len(c.b.Networks) == 0 || !fixed {
		return another
	}
	return ""
}

// startElsewhere makes the successor again, without the address that somebody else has got meanwhile: the predecessor need not
// get it back, either.
func (p *passage) startElsewhere(ctx context.Context) error {
	// From here on it is found by its name: there is the first, none, or the second.
	if err := p.add(entry{Step: StepMake, At: p.now()}); err != nil {
		return err
	}
	first := p.successor
	p.successor = ""
	if err := p.ask(ctx, func(ctx context.Context) error { return p.Engine.Remove(ctx, first) }); err != nil {
		return err
	}
	if err := p.make(ctx, engine.AddressAny); err != nil {
		return err
	}
	p.deadline = time.Now().Add(p.head.Plan.Patience)
	return p.launch(ctx, p.successor)
}

// tellAddress of who serves, if it has lost one that its predecessor had.
func (p *passage) tellAddress(ctx context.Context, before []netip.Addr) {
	if len(before) == 0 || p.result.Serving == "" {
		return
	}
	var b engine.Blueprint
	err := p.ask(ctx, func(ctx context.Context) (err error) {
		b, err = p.Engine.Blueprint(ctx, p.result.Serving)
		return err
	})
	if err != nil {
		p.warn(fmt.Errorf("ask for its address: %w", err))
		return
	}
	if slices.ContainsFunc(before, func(a netip.Addr) bool { return !slices.Contains(b.Addresses, a) }) {
		p.warn(fmt.Errorf("its address was %s and is %s: who has looked the first up before does not find it", list(before), list(b.Addresses)))
	}
}

func list(all []netip.Addr) string {
	var words []string
	for _, a := range all {
		words = append(words, a.String())
	}
	return strings.Join(words, ", ")
}
