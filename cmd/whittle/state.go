// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
)

// stored is what was learned before: asked of the agent, or read from its database where none runs.
type stored interface {
	api.Reader
	api.Writer
	Close() error
}

// stored state. An agent that keeps another --state is not asked.
func (a *app) stored(ctx context.Context) (stored, error) {
	client := api.NewClient(a.socket)
	status, err := client.Status(ctx)
	switch {
	case err == nil && (!a.ownState || sameDir(status.State, a.state)):
		return client, nil
	case err == nil, errors.Is(err, api.ErrNotRunning):
		client.Close()
		return openState(a.state)
	}
	client.Close()
	return nil, err
}

// writable is stored state to write to, which may be empty still.
func (a *app) writable(ctx context.Context) (api.Writer, func() error, error) {
	s, err := a.stored(ctx)
	if errors.Is(err, errNothing) {
		return disk{dir: a.state}, func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return s, s.Close, nil
}

func sameDir(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// isFile tells a policy file from the name of a workload.
func isFile(ref string) bool { return strings.ContainsRune(ref, '/') || filepath.Ext(ref) == ".json" }

// policy of a workload or in a file.
func (a *app) policy(ctx context.Context, ref string) (policy.Policy, error) {
	if isFile(ref) {
		return readPolicy(ref)
	}
	if ref == "" {
		return policy.Policy{}, usageError{errors.New("the name of the workload is empty")}
	}
	s, err := a.stored(ctx)
	if err != nil {
		return policy.Policy{}, err
	}
	defer s.Close()
	p, err := s.Policy(ctx, ref)
	if errors.Is(err, api.ErrNotFound) && hint.Of(err) == "" {
		return p, hint.Add(err, "whittle policy list shows the workloads that are known; a file needs a / or ends in .json")
	}
	return p, err
}

func readPolicy(path string) (policy.Policy, error) {
	f, err := os.Open(path)
	if err != nil {
		return policy.Policy{}, fmt.Errorf("open policy: %w", err)
	}
	defer f.Close()
	p, err := policy.Read(f)
	if err != nil {
		return policy.Policy{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}
