// SPDX-License-Identifier: Apache-2.0

package agent

import "github.com/whittle-sec/whittle/internal/policy"

// sum of what the running containers of a workload teach: a tree of merges. When one of them teaches more, or ends, only the
// merges above it are made again, and not one for each of hundreds. The zero sum is empty.
type sum struct {
	leaves map[key]int // offset of each container's
	free   []int       // offsets
	nodes  []node      // a complete binary tree: 1 is the root, below i are 2i and 2i+1, the second half are the leaves
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
		if len(s.free) == 0 {
			s.grow()
		}
		leaf = s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		s.leaves[k] = leaf
	}
	s.set(leaf, node{p: p, some: true})
}

func (s *sum) remove(k key) {
	if leaf, known := s.leaves[k]; known {
		delete(s.leaves, k)
		s.free = append(s.free, leaf)
		s.set(leaf, node{})
	}
}

func (s *sum) set(leaf int, n node) {
	i := len(s.nodes)/2 + leaf
	s.nodes[i] = n
	for i /= 2; i > 0 && !s.nodes[i].stale; i /= 2 {
		s.nodes[i].stale = true
	}
}

// grow to twice as many leaves.
func (s *sum) grow() {
	if s.leaves == nil {
		s.leaves = map[key]int{}
	}
	have := len(s.nodes) / 2
	want := max(1, 2*have)
	nodes := make([]node, 2*want)
	copy(nodes[want:], s.nodes[have:])
	for i := range want {
		nodes[i].stale = true
	}
	for leaf := want - 1; leaf >= have; leaf-- {
		s.free = append(s.free, leaf)
	}
	s.nodes = nodes
}

// merged is what all of them teach; false when there are none.
func (s *sum) merged() (policy.Policy, bool) {
	if s.len() == 0 {
		return policy.Policy{}, false
	}
	n := s.fresh(1)
	return n.p, n.some
}

func (s *sum) fresh(i int) node {
	if !s.nodes[i].stale {
		return s.nodes[i]
	}
	a, b := s.fresh(2*i), s.fresh(2*i+1)
	if a.some && b.some {
		a.p = policy.Merge(a.p, b.p)
	} else if b.some {
		a = b
	}
	s.nodes[i] = a
	return a
}
