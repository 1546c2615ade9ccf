// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"encoding/json"
	"testing"

	"github.com/whittle-sec/whittle/internal/policy"
)

// What an intruder in a worker would signal asks for more than what a master does; and what is known of a target never takes away
// what is given without it.
func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		name, call string
		args       []uint64
		target     Target
		want       Level
	}{
		{"another process", "kill", []uint64{1, 9}, NoTarget, Grave},
		{"a child that has ended", "kill", []uint64{7, 9}, Gone, Sensitive},
		{"a child", "kill", []uint64{7, 9}, Descendant, Sensitive},
		{"itself", "tgkill", []uint64{5, 6, 10}, Itself, Ordinary},
		{"everybody", "kill", []uint64{0xffffffffffffffff, 9}, Descendant, Grave},
		{"no signal", "kill", []uint64{1, 0}, NoTarget, Ordinary},
		{"by a descriptor", "pidfd_send_signal", []uint64{5, 9}, Descendant, Grave},
		{"no signal's business", "setuid", nil, Itself, Grave},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := New(learned(t, "redis"), nil).hear(asks(t, redisServer, policy.Run, tt.call, tt.args...), Evidence{Target: tt.target})
			if h.risk.level != tt.want {
				t.Errorf("%v, %s; want %v", h.risk.level, h.risk.why, tt.want)
			}
		})
	}
	for _, service := range []struct{ name, role string }{{"nginx", nginxMaster}, {"nginx", nginxWorker}, {"redis", redisServer}, {"postgres", backend}} {
		p := New(learned(t, service.name, "kill"), corpus())
		for _, name := range []string{"kill", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_send_signal", "umask", "connect"} {
			for _, phase := range policy.Phases {
				q, e := asks(t, service.role, phase, name, 7, 9), imports("/usr/sbin/x", name)
				for n := range 4 {
					last := Refuse
					for _, target := range []Target{NoTarget, Gone, Descendant, Itself} {
						e.Fleet, e.Target = Fleet{Replicas: 4, Needed: n}, target
						d := p.Decide(q, e)
						if d.Verdict < last {
							t.Errorf("%s of %s while in %v, to %v: %v, and %v to one that says less", name, service.role, phase, target, d.Verdict, last)
						}
						last = d.Verdict
					}
				}
			}
		}
	}
}

func TestTargetText(t *testing.T) {
	for _, target := range []Target{NoTarget, Gone, Descendant, Itself} {
		text, err := json.Marshal(Evidence{Target: target})
		if err != nil {
			t.Fatal(err)
		}
		var back Evidence
		if err := json.Unmarshal(text, &back); err != nil || back.Target != target {
			t.Errorf("%v became %v by %s (%v)", target, back.Target, text, err)
		}
	}
	var e Evidence
	if err := json.Unmarshal([]byte(`{"target":"everybody"}`), &e); err != nil || e.Target != NoTarget {
		t.Errorf("an unknown target: %v, %v", e.Target, err)
	}
}
