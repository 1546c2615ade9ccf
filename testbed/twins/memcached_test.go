// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/load"
)

func TestMemcachedServes(t *testing.T) {
	testenv.NeedGCC(t)
	testenv.NeedTool(t, "apt-get", "dpkg-source", "make", "memcached")
	twin := built(t, Memcached)
	for _, test := range []struct{ name, program string }{
		{"production", twin.program}, {"oracle", twin.hardened}, {"stock", memcachedPath},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, twin, test.program)
			if err := s.Ask(t.Context(), twin.Rare()); err != nil {
				t.Error(err)
			}
			for _, mode := range []struct {
				name string
				talk load.Talk
				load load.Load
			}{
				{"connection per request", twin.Talk(), load.Load{Workers: 4, For: 300 * time.Millisecond, PerConnection: 1}},
				{"pipelined", load.Memcached(50), load.Load{Workers: 4, For: 300 * time.Millisecond}},
			} {
				stats := load.Run(t.Context(), s.Target, mode.talk, mode.load)
				t.Log(mode.name, stats)
				if stats.Failed > 0 || stats.Stale > 0 || stats.Requests < 10 {
					t.Errorf("%s: %v", mode.name, stats)
				}
			}
		})
	}
}
