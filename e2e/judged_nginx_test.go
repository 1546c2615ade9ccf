// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// cases that the panel decided, as the journal has them.
func (d *daemon) cases() (all []judge.Case) {
	d.t.Helper()
	for _, e := range d.events() {
		if e.Kind != "judged" {
			continue
		}
		var c judge.Case
		if err := json.Unmarshal(e.Data, &c); err != nil {
			d.t.Fatalf("the event %+v: %v", e, err)
		}
		all = append(all, c)
	}
	return all
}

// TestJudgedNginx: what was never learned of nginx happens while it is enforced. A worker that dies is replaced, though only a
// boot was seen to make any; what an intruder has the same processes do is refused.
func TestJudgedNginx(t *testing.T) {
	t.Parallel()
	e, d := supervisedBed(t, "crun")
	port := freePort(t)
	loadNginx(t, e, port)
	startNginx(t, e, port, "learner")
	l := nginxLoad(t, port)
	d.container("learner", "serves", func(c api.Container) bool { return c.Phase == policy.Run && c.ByPhase["run"] > 0 })
	l.goOn(50)
	l.end()
	bedtest.Podman(t, e, "stop", "--time", "20", "learner")
	bedtest.Podman(t, e, "rm", "learner")
	d.forgotten()

	d.whittle("policy", "mode", "nginx", "enforce")
	startNginx(t, e, port, "held")
	l = nginxLoad(t, port)
	c := d.supervised("held", api.ModeEnforce, policy.Run)
	l.goOn(20)
	killed := workersOf(t, c.PID)[0]
	if err := unix.Kill(killed, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the master has made another worker", func() (bool, string) {
		now := childrenOf(t, c.PID)
		return len(now) == 2 && !slices.Contains(now, killed), d.whittle("event", "list")
	})
	workersOf(t, c.PID)
	bedtest.Podman(t, e, "kill", "--signal", "USR1", "held") // its logs are opened again
	bedtest.Podman(t, e, "kill", "--signal", "HUP", "held")
	l.goOn(50)
	d.nothingRefused("by what an administrator does")
	respawned := false
	for _, c := range d.cases() {
		if c.Decision.Verdict < judge.Once {
			t.Errorf("not let through: %+v", c)
		}
		if c.Evidence.Origin.Class != judge.File || c.Evidence.Import.Carrier == judge.NotRead {
			t.Errorf("%s is judged without evidence: %+v", c.Question.Call, c.Evidence)
		}
		respawned = respawned || c.Question.Call.String() == "clone" && c.Question.Phase == policy.Run
	}
	if !respawned {
		t.Errorf("the panel was not asked about the new worker: %+v", d.cases())
	}
	d.supervised("held", api.ModeEnforce, policy.Run) // again, with no more news
	for _, worker := range workersOf(t, c.PID) {
		refusedIn(t, worker, "execve", "clone", "bind", "listen", "setuid", "unshare", "bpf", "ptrace")
	}
	refusedIn(t, c.PID, "execve", "setuid", "bind", "listen", "unshare", "bpf", "ptrace")
	l.end()
	bedtest.Podman(t, e, "stop", "--time", "20", "held")
	exited(t, e, "held")
}
