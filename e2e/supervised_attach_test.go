// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// attachable is a service that was learned from, and how it is used.
type attachable struct {
	name    string
	start   func(t *testing.T, e *testbed.Env, port, name string)
	load    func(t *testing.T, port string) *load
	learn   func(t *testing.T, e *testbed.Env, d *daemon, port string)
	prepare func(t *testing.T, e *testbed.Env, port string)
	uses    int64 // of the load between two steps
	check   func(t *testing.T, e *testbed.Env, d *daemon, port string, pid int)
}

func attachables() []attachable {
	return []attachable{{
		name: "redis", load: redisLoad, uses: 200,
		prepare: func(t *testing.T, e *testbed.Env, port string) {
			loadIntrudedRedis(t, e)
			bedtest.Podman(t, e, "volume", "create", "data")
		},
		learn: learnRedis,
		start: func(t *testing.T, e *testbed.Env, port, name string) {
			startRedis(t, e, port, name, "--volume", "data:/data")
		},
		check: func(t *testing.T, e *testbed.Env, d *daemon, port string, _ int) {
			redisIsHeld(t, d, port)
			useRedis(t, port)
		},
	}, {
		name: "nginx", load: nginxLoad, uses: 50, prepare: loadNginx, learn: learnNginx,
		start: func(t *testing.T, e *testbed.Env, port, name string) { startNginx(t, e, port, name) },
		check: func(t *testing.T, e *testbed.Env, d *daemon, port string, pid int) {
			for _, worker := range workersOf(t, pid) {
				refusedIn(t, worker, "execve", "clone", "bind", "listen", "setuid", "setgid", "unshare", "bpf", "ptrace")
			}
			refusedIn(t, pid, "execve", "setuid", "unshare", "bpf", "ptrace")
			for range 2 {
				reloadNginx(t, e, "held", pid)
			}
		},
	}, {
		name: "postgres", uses: 2, learn: learnPostgres,
		load: func(t *testing.T, port string) *load {
			return startLoad(t, 1, func(ctx context.Context, _ int) error { return pgbench(ctx, port) })
		},
		prepare: func(t *testing.T, e *testbed.Env, _ string) { loadPostgres(t, e) },
		start:   func(t *testing.T, e *testbed.Env, port, name string) { startPostgres(t, e, port, name) },
		check: func(t *testing.T, e *testbed.Env, d *daemon, port string, pid int) {
			postgresIsHeld(t, d, port, pid)
			usePostgres(t, port)
		},
	}}
}

// TestAttachUnderLoad: services that run and were started without a filter of whittle's get one, and lose no connection.
func TestAttachUnderLoad(t *testing.T) {
	t.Parallel()
	for _, s := range attachables() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			attachUnderLoad(t, s)
		})
	}
}

func attachUnderLoad(t *testing.T, s attachable) {
	e, d := supervisedBed(t, "")
	port := freePort(t)
	s.prepare(t, e, port)
	s.learn(t, e, d, port)
	s.start(t, e, port, "held")
	l := s.load(t, port)
	c := d.container("held", "serves", func(c api.Container) bool { return c.Phase == policy.Run && c.ByPhase["run"] > 0 })
	l.goOn(s.uses)
	if s.name == "redis" {
		d.whittle("policy", "mode", s.name, "enforce") // which has the agent attach by itself
	} else {
		r := ask[api.AttachResult](d, "attach", "held")
		if !r.Complete || r.Listeners == 0 || r.Paused <= 0 || len(r.Processes) < 2 {
			t.Errorf("attach: %+v", r)
		}
		t.Logf("%d processes stopped for %s", len(r.Processes), r.Paused)
		l.goOn(s.uses)
		d.whittle("policy", "mode", s.name, "enforce")
	}
	d.supervised("held", api.ModeEnforce, policy.Run)
	l.goOn(s.uses)
	d.asIntended("held")
	d.nothingRefused("after attaching under load")
	s.check(t, e, d, port, c.PID)
	l.goOn(s.uses)
	l.end()
	bedtest.Podman(t, e, "stop", "--time", "20", "held")
	exited(t, e, "held")
	d.forgotten()
}
