// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"testing"

	"github.com/whittle-sec/whittle/internal/policy"
)

// BenchmarkDecide a case of each outcome, the evidence being there: 20 µs are what a verdict may cost then.
func BenchmarkDecide(b *testing.B) {
	p := New(learned(b, "nginx", "kill"), corpus())
	for _, bench := range []struct {
		name string
		q    Question
		e    Evidence
	}{
		{"accepted", asks(b, nginxMaster, policy.Reload, "kill", 77, 3), imports("/usr/sbin/nginx", "kill")},
		{"asked", asks(b, nginxWorker, policy.Run, "setuid"), imports("/usr/sbin/nginx", "setuid")},
		{"gated", asks(b, nginxMaster, policy.Run, "setxattr"), borrowed()},
		{"vetoed", asks(b, nginxWorker, policy.Run, "unshare"), borrowed()},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(bench.q, bench.e)
			}
		})
	}
}

// BenchmarkDecideFirst is the first time that a policy's panel hears of a gated call.
func BenchmarkDecideFirst(b *testing.B) {
	q := asks(b, nginxMaster, policy.Run, "setxattr")
	p := New(learned(b, "nginx"), corpus())
	for b.Loop() {
		clear(p.memory.opens)
		p.Decide(q, borrowed())
	}
}

func BenchmarkNew(b *testing.B) {
	p := learned(b, "postgres")
	for b.Loop() {
		New(p, nil)
	}
}
