// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// stored are rules as a file has them.
type stored struct {
	items []string
	views []storedView
	about [][]rule // by item
}

type storedView struct{ total, rows uint64 }

// The packed rules, little endian: the number of items (2 bytes) and each item's name after its length (1); the number of views
// (1), each with its weight and its rows (8 and 8); for each item the number of its rules (2), and each rule as ruleSize
// bytes: the items of If (2 each), the view (1), the sources (8), support (8), confidence, lower bound and lift (8 each).
const ruleSize = 2*maxIf + 1 + 8 + 8 + 3*8

// pack mines what is not mined yet.
func (r *Rules) pack() (out []byte) {
	le := binary.LittleEndian
	out = le.AppendUint16(out, uint16(len(r.items.names)))
	for _, name := range r.items.names {
		out = append(append(out, byte(len(name))), name...)
	}
	out = append(out, byte(len(r.views)))
	for _, v := range r.views {
		out = le.AppendUint64(le.AppendUint64(out, v.total), uint64(v.rows))
	}
	for _, about := range r.about {
		rules := about()
		out = le.AppendUint16(out, uint16(len(rules)))
		for _, one := range rules {
			for _, item := range one.ifs {
				out = le.AppendUint16(out, uint16(item))
			}
			out = le.AppendUint64(le.AppendUint64(append(out, byte(one.view)), one.sources), one.support)
			for _, share := range []float64{one.confidence, one.lower, one.lift} {
				out = le.AppendUint64(out, math.Float64bits(share))
			}
		}
	}
	return out
}

// packed is read from its beginning; what is not there is zero, and short is told at the end.
type packed struct {
	rest  []byte
	short bool
}

func (p *packed) bytes(n int) []byte {
	if p.short = p.short || n > len(p.rest); p.short {
		return make([]byte, n)
	}
	out := p.rest[:n]
	p.rest = p.rest[n:]
	return out
}

func (p *packed) u8() int        { return int(p.bytes(1)[0]) }
func (p *packed) u16() uint16    { return binary.LittleEndian.Uint16(p.bytes(2)) }
func (p *packed) u64() uint64    { return binary.LittleEndian.Uint64(p.bytes(8)) }
func (p *packed) share() float64 { return math.Float64frombits(p.u64()) }

func unpackRules(text []byte) (s stored, err error) {
	p := &packed{rest: text}
	for range min(int(p.u16()), maxCalls) {
		s.items = append(s.items, string(p.bytes(p.u8())))
	}
	for range p.u8() {
		s.views = append(s.views, storedView{p.u64(), p.u64()})
	}
	for range s.items {
		n := int(p.u16())
		if n > maxRules || n*ruleSize > len(p.rest) {
			return stored{}, fmt.Errorf("%d rules of one call", n)
		}
		rules := make([]rule, n)
		for i := range rules {
			if rules[i], err = p.rule(s); err != nil {
				return stored{}, err
			}
		}
		if !slices.IsSortedFunc(rules, rule.compare) {
			return stored{}, errors.New("the rules of a call are not in order")
		}
		s.about = append(s.about, rules)
	}
	if p.short || len(p.rest) > 0 {
		return stored{}, errors.New("the rules do not end where they should")
	}
	return s, nil
}

func (p *packed) rule(s stored) (one rule, err error) {
	for i := range one.ifs {
		one.ifs[i] = int16(p.u16())
		if item := int(one.ifs[i]); item < -1 || item >= len(s.items) || i == 0 && item < 0 {
			return rule{}, fmt.Errorf("a rule goes by item %d", item)
		}
	}
	one.view = int8(p.u8())
	if int(one.view) < 0 || int(one.view) >= len(s.views) {
		return rule{}, fmt.Errorf("a rule of view %d", one.view)
	}
	one.sources, one.support = p.u64(), p.u64()
	one.confidence, one.lower, one.lift = p.share(), p.share(), p.share()
	if !(one.confidence >= 0 && one.confidence <= 1 && one.lower >= 0 && one.lower <= one.confidence && one.lift >= 0) { // nor NaN
		return rule{}, fmt.Errorf("a rule holds in %v, at least %v", one.confidence, one.lower)
	}
	return one, nil
}

// rules of the services that they were mined from.
func (s stored) rules(services []Service, it items) *Rules {
	r := &Rules{items: it}
	for _, service := range services {
		r.services = append(r.services, service.Name)
	}
	for _, v := range s.views {
		r.views = append(r.views, &view{total: v.total, rows: int(v.rows)})
	}
	for _, rules := range s.about {
		r.about = append(r.about, func() []rule { return rules })
	}
	return r
}
