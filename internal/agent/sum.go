// SPDX-License-Identifier: Apache-2.0

package agent

import "github.com/whittle-sec/whittle/internal/policy"

// fan is how many nodes of the tree are below one. The more, the less memory the merges take beside what is merged: a
// seventh of it. The fewer, the fewer merges one change takes.
const fan = 8

// sum of what the running containers of a workload teach: a tree of merges. When one of them teaches more, or ends, only the
// merges above it are made again, and not one for each of hundreds. The zero sum is empty.
type sum struct {
	leaves map[key]int // offset of each container's
	free   []int       // offsets
	levels [][]node    // leaves first, the root last
}

type node struct {
	p     policy.Policy
	some  bool // p holds anything
	stale bool // something below has changed; what is above a stale node is stale
}

func (s *sum) len() int { return len(s.leaves) }

// put what a container teaches in the place of what it has taught before.
func (s *sum) put(k key, p policy.Policy) {
	leaf, known := s.leaves[k]
	if !known {
		leaf = s.room()
		s.leaves[k] = leaf
	}
	s.set(leaf, node{p: p, some: true})
}

// room for one more leaf.
func (s *sum) room() int {
	if s.leaves == nil {
		s.leaves, s.levels = map[key]int{}, [][]node{nil}
	}
	if last := len(s.free) - 1; last >= 0 {
		leaf := s.free[last]
		s.free = s.free[:last]
		return leaf
	}
	return len(s.levels[0])
}

func (s *sum) remove(k key) {
	if leaf, known := s.leaves[k]; known {
		delete(s.leaves, k)
		s.free = append(s.free, leaf)
		s.set(leaf, node{})
	}
}

// set a leaf, or add one behind the last, and mark what is above.
func (s *sum) set(i int, n node) {
	if i == len(s.levels[0]) {
		s.levels[0] = append(s.levels[0], node{})
	}
	s.levels[0][i] = n
	for l := 1; len(s.levels[l-1]) > 1; l++ {
		i /= fan
		if l == len(s.levels) {
			s.levels = append(s.levels, nil)
		}
		level := s.levels[l]
		switch {
		case i == len(level):
			s.levels[l] = append(level, node{stale: true})
		case level[i].stale:
			return
		default:
			level[i] = node{stale: true}
		}
	}
}

// merged is what all of them teach; false when there are none.
func (s *sum) merged() (policy.Policy, bool) {
	if s.len() == 0 {
		return policy.Policy{}, false
	}
	n := s.fresh(len(s.levels)-1, 0)
	return n.p, n.some
}

func (s *sum) fresh(l, i int) node {
	if !s.levels[l][i].stale {
		return s.levels[l][i]
	}
	var all node
	for below := i * fan; below < min((i+1)*fan, len(s.levels[l-1])); below++ {
		switch n := s.fresh(l-1, below); {
		case all.some && n.some:
			all.p = policy.Merge(all.p, n.p)
		case n.some:
			all = n
		}
	}
	s.levels[l][i] = all
	return all
}
