// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The kernel's own list: who joins is appended (reuseport_add_sock), the last takes the place of who leaves
// (reuseport_detach_sock). Looking now and then, at most one left or joined since, gives the same.
func TestOrderFollowsTheKernel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kernel := []uint64{1}
		o, err := newOrder([]uint64{1})
		if err != nil {
			t.Fatal(err)
		}
		next := uint64(2)
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			if at := rapid.IntRange(-1, len(kernel)-1).Draw(t, "leaves"); at >= 0 {
				kernel[at] = kernel[len(kernel)-1]
				kernel = kernel[:len(kernel)-1]
			} else {
				kernel = append(kernel, next)
				next++
			}
			// /proc tells them in an order of its own.
			if err := o.update(rapid.Permutation(kernel).Draw(t, "seen")); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(o.members, kernel) {
				t.Fatalf("got %v, want %v", o.members, kernel)
			}
		}
	})
}

func TestOrderTellsWhatItCannotFollow(t *testing.T) {
	if _, err := newOrder([]uint64{1, 2}); err == nil {
		t.Error("two sockets of one side were taken")
	}
	o, err := newOrder([]uint64{1})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.update([]uint64{1, 2, 3}); err == nil {
		t.Error("two that joined at once were told apart")
	}
}
