// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"encoding/json"
	"testing"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
)

// A socket between processes is no way to the network, and whoever may have the call without knowing that may have it still.
func TestSocketsBetweenProcesses(t *testing.T) {
	p := learned(t, "redis", "connect", "bind")
	imports := Import{Carrier: Imports, Object: "/usr/bin/redis-server", Symbol: "connect"}
	for _, tt := range []struct {
		name, call string
		socket     Socket
		want       Verdict
	}{
		{"to the network, for all that is known", "connect", NoSocket, Ask},
		{"between processes", "connect", Unix, Once},
		{"a name for others to connect to", "bind", Unix, Once},
		{"of netlink", "bind", Netlink, Once},
		{"a port", "bind", NoSocket, Ask},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := Question{Call: call(t, tt.call), Lane: observe.LaneService, Phase: policy.Run, Role: redisServer}
			e := Evidence{Origin: Origin{Class: File}, Import: imports, Socket: tt.socket}
			d := New(p, nil).Decide(q, e)
			if d.Verdict != tt.want {
				t.Errorf("Decide = %+v, want %v", d, tt.want)
			}
			e.Origin.Class = Anonymous
			if d := New(p, nil).Decide(q, e); d.Verdict != Refuse {
				t.Errorf("injected code: %+v", d)
			}
		})
	}
	for n := range 4 {
		e := Evidence{Origin: Origin{Class: File}, Import: imports, Fleet: Fleet{Replicas: 4, Needed: n}}
		for _, name := range []string{"connect", "bind", "listen", "umask"} {
			for _, phase := range policy.Phases {
				q := Question{Call: call(t, name), Lane: observe.LaneService, Phase: phase, Role: redisServer}
				blind := New(p, nil).Decide(q, e)
				for _, e.Socket = range []Socket{Unix, Netlink} {
					if d := New(p, nil).Decide(q, e); d.Verdict < blind.Verdict {
						t.Errorf("%s while in %v, of %v: %v, and %v where that is not known", name, phase, e.Socket, d.Verdict, blind.Verdict)
					}
				}
				e.Socket = NoSocket
			}
		}
	}
}

func TestSocketText(t *testing.T) {
	for _, s := range []Socket{NoSocket, Unix, Netlink} {
		text, err := json.Marshal(Evidence{Socket: s})
		if err != nil {
			t.Fatal(err)
		}
		var back Evidence
		if err := json.Unmarshal(text, &back); err != nil || back.Socket != s {
			t.Errorf("%v became %v by %s (%v)", s, back.Socket, text, err)
		}
	}
	var e Evidence
	if err := json.Unmarshal([]byte(`{"socket":"ax25"}`), &e); err != nil || e.Socket != NoSocket {
		t.Errorf("an unknown family: %v, %v", e.Socket, err)
	}
}
