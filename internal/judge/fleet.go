// SPDX-License-Identifier: Apache-2.0

package judge

import "fmt"

// fleet asks the other replicas: an intruder is rarely in most of them at once, and a service's rare operation comes to
// all in time. That none needed it says nothing, because somebody is always the first.
func fleet(f Fleet) Vote {
	switch n := min(f.Needed, f.Replicas); {
	case f.Replicas <= 0:
		return Vote{Why: "no other replica is known"}
	case n <= 0:
		return Vote{Why: fmt.Sprintf("none of %d other replicas needed it", f.Replicas)}
	case n >= 2 && 2*n >= f.Replicas:
		return Vote{Stance: For, Points: mostReplicas, Why: fmt.Sprintf("%d of %d other replicas needed it", n, f.Replicas)}
	default:
		return Vote{Stance: For, Points: oneReplica, Why: fmt.Sprintf("%d of %d other replicas needed it", n, f.Replicas)}
	}
}
