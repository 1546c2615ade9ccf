// SPDX-License-Identifier: Apache-2.0

// Package oci is the side of OCI hooks: what a runtime tells on a hook's stdin becomes a description of the container, before
// its first call. It knows how engines write their bundles, and it does not talk to engines or to the agent.
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/workload"
)

// maxState bounds the State on stdin. It holds the annotations, which the engine's user chose.
const maxState = 1 << 20

// State is what a runtime gives to a hook.
type State struct {
	specs.State
}

// ReadState parses and checks it.
func ReadState(r io.Reader) (State, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxState+1))
	if err != nil {
		return State{}, fmt.Errorf("read the container's state: %w", err)
	}
	if len(data) > maxState {
		return State{}, fmt.Errorf("read the container's state: more than %d bytes", maxState)
	}
	return parseState(data)
}

func parseState(data []byte) (State, error) {
	var s State
	if err := json.Unmarshal(data, &s.State); err != nil {
		return State{}, fmt.Errorf("understand the container's state: %w", err)
	}
	if err := s.check(); err != nil {
		return State{}, fmt.Errorf("understand the container's state: %w", err)
	}
	return s, nil
}

func (s State) check() error {
	switch s.Status {
	case specs.StateCreating, specs.StateCreated, specs.StateRunning:
		if s.Pid <= 0 {
			return fmt.Errorf("pid %d of a container that is %s", s.Pid, s.Status)
		}
	case specs.StateStopped:
	default:
		return fmt.Errorf("unknown status %q", workload.Printable(string(s.Status), 40))
	}
	if !validID(s.ID) {
		return fmt.Errorf("unusable id %q", workload.Printable(s.ID, 80))
	}
	// It is opened, so a relative one would depend on where the hook was started.
	if !path.IsAbs(s.Bundle) || path.Clean(s.Bundle) != s.Bundle {
		return errors.New("the bundle is not a clean absolute path")
	}
	return nil
}

// validID takes what runc takes. An id becomes part of paths and of what people read.
func validID(id string) bool {
	if id == "" || len(id) > 1024 || id == "." || id == ".." {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '_', c == '+', c == '-', c == '.':
		default:
			return false
		}
	}
	return true
}
