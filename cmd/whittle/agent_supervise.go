// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/corpus"
	"github.com/whittle-sec/whittle/internal/holder"
	"github.com/whittle-sec/whittle/internal/origin"
	"github.com/whittle-sec/whittle/internal/supervise"
)

// supervising is what the agent holds calls with. Its sockets lie beside the agent's own, so that a second agent, with
// another socket, has a holder of its own.
func (a *app) supervising(log *slog.Logger, f agentFlags) (*agent.Supervising, error) {
	listener, err := a.listenerSocket()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this executable: %w", err)
	}
	s, err := supervise.New(log)
	if err != nil {
		return nil, err
	}
	rootless, err := supervise.New(log)
	if err != nil {
		s.Close()
		return nil, err
	}
	keep := holder.Config{Control: filepath.Join(filepath.Dir(listener), "holder.sock"), Listener: listener, Group: api.Group, Log: log}
	return &agent.Supervising{
		Supervisor: s, Rootless: rootless, Exe: self, Listener: keep.Listener, Default: api.WorkloadMode(f.mode), ShadowTime: f.shadow,
		Holder: func(ctx context.Context) (*holder.Client, error) { return holder.Start(ctx, self, keep) },
	}, nil
}

// maxAsk is longer than anybody's patience, and shorter than what a service survives with a thread that stands still.
const maxAsk = time.Hour

// judging is what the panel goes by; nil without one.
func judging(f agentFlags) (*agent.Judging, error) {
	if f.ask < 0 || f.ask > maxAsk {
		return nil, fmt.Errorf("--ask %s: it is between 0 and %s", f.ask, maxAsk)
	}
	if !f.panel {
		return nil, nil
	}
	recorded, err := readCorpus(f.corpus)
	if err != nil {
		return nil, err
	}
	return &agent.Judging{Evidence: origin.NewGatherer(0), Rules: recorded.Rules(), Ask: f.ask}, nil
}

// readCorpus of a file; "" is what whittle came with.
func readCorpus(name string) (*corpus.Corpus, error) {
	if name == "" {
		return corpus.Shipped()
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read a corpus: %w", err)
	}
	defer f.Close()
	c, err := corpus.Read(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return c, nil
}

// listenerSocket to which runtimes hand listeners: beside the agent's own.
func (a *app) listenerSocket() (string, error) {
	socket, err := filepath.Abs(a.socket)
	if err != nil {
		return "", fmt.Errorf("find the socket: %w", err)
	}
	return filepath.Join(filepath.Dir(socket), "seccomp.sock"), nil
}
