// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/holder"
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

// listenerSocket to which runtimes hand listeners: beside the agent's own.
func (a *app) listenerSocket() (string, error) {
	socket, err := filepath.Abs(a.socket)
	if err != nil {
		return "", fmt.Errorf("find the socket: %w", err)
	}
	return filepath.Join(filepath.Dir(socket), "seccomp.sock"), nil
}
