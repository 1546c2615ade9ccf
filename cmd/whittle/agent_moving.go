// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/renew"
)

// moving is what the agent has containers take over from each other with.
func (a *app) moving(engines []engine.Engine, f agentFlags) (*agent.Moving, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this executable: %w", err)
	}
	state, err := filepath.Abs(a.state)
	if err != nil {
		return nil, fmt.Errorf("find the state directory: %w", err)
	}
	makers := map[string]engine.Maker{}
	for _, e := range engines {
		if m, ok := e.(engine.Maker); ok {
			makers[e.Name()] = m
		}
	}
	sockets := map[string]string{"podman": f.podman, "docker": f.docker}
	dir := filepath.Join(state, "renew")
	return &agent.Moving{
		Makers: makers, Oracles: filepath.Join(state, "oracles"), Units: unitsDir(state), Limits: loop.Defaults(), Renew: f.renew == renewAuto,
		Move: func(ctx context.Context, engine string, q renew.Request, tell func(renew.Done)) (renew.Result, error) {
			return renew.RunJob(ctx, self, renew.Job{Request: q, Engine: engine, Socket: sockets[engine], Dir: dir, Tell: tell})
		},
		Profiles: func() ([]string, error) { return renew.Profiles(dir) },
		Stand: func(ctx context.Context, engine, container string, ports []netip.AddrPort) (agent.Guard, error) {
			return (&renew.Runner{Engine: makers[engine], Dir: dir}).Stand(ctx, container, ports)
		},
		Recover: func(ctx context.Context, engine string, containers ...string) ([]renew.Result, bool, error) {
			m := makers[engine]
			if m == nil {
				return nil, false, nil
			}
			done, err := (&renew.Runner{Engine: m, Dir: dir}).Recover(ctx)
			return done, renewing(dir, containers), err
		},
	}, nil
}

// renewing tells whether the journal of one of the containers is there: what Recover leaves goes on.
func renewing(dir string, containers []string) bool {
	journals, err := os.ReadDir(dir)
	if err != nil {
		return false // nothing was renewed yet
	}
	for _, j := range journals {
		for _, c := range containers {
			if c != "" && strings.HasPrefix(j.Name(), c[:min(len(c), 12)]+"-") {
				return true
			}
		}
	}
	return false
}
