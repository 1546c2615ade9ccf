// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// share of something: n of m.
type share struct{ n, of int }

func (s *share) add(good bool) {
	s.of++
	if good {
		s.n++
	}
}

func (s share) String() string {
	if s.of == 0 {
		return "none of none"
	}
	return fmt.Sprintf("%d of %d (%.1f %%)", s.n, s.of, 100*float64(s.n)/float64(s.of))
}

// atLeast tells whether the share reaches a bar, in percent. Nothing reaches none.
func (s share) atLeast(percent int) bool { return s.of > 0 && 100*s.n >= percent*s.of }

// counts that the bars are about.
type counts struct {
	services int // with a rare operation that was done
	table1   share
	rare     share // operations beside Table 1's that needed something new, and are in neither of the two below
	programs share // operations that start an unknown program
	ways     share // operations that open a new way to the network
	all      share // all that needed something new
	nothing  int   // operations that needed nothing new; they say nothing about the panel
	broken   int   // of these, those that did not work, or whose service could not be started

	attacks  share // attempted calls refused, beside the veto list
	veto     share // attempted calls of the veto list refused
	poisoner share // attempts of calls that were made while learning, refused
	untried  int   // attacks that could not be tried
}

func count(rs *results) (c counts) {
	for _, r := range rs.Services {
		if len(r.Ops) > 0 {
			c.services++
		}
		for _, op := range r.Ops {
			if op.asked() {
				c.all.add(op.accepted())
			}
			switch {
			case ofTable1(r.Service, op.Op):
				c.table1.add(op.accepted())
			case startsProgram[r.Service+"/"+op.Op] != "":
				c.programs.add(op.accepted())
			case opensWay[r.Service+"/"+op.Op] != "" && op.asked():
				c.ways.add(op.accepted())
			case !op.asked() && op.Problem != "":
				c.broken++
			case !op.asked():
				c.nothing++
			default:
				c.rare.add(op.accepted())
			}
		}
		for _, a := range r.Attacks {
			if len(a.Tried) == 0 {
				c.untried++
			}
			for _, t := range a.Tried {
				switch {
				case a.Learning:
					c.poisoner.add(t.Refused)
				case t.Veto:
					c.veto.add(t.Refused)
				default:
					c.attacks.add(t.Refused)
				}
			}
		}
	}
	return c
}
