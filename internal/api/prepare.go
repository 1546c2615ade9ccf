// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/whittle-sec/whittle/internal/engine"
)

// Preparation is asked for before a container is created: what seccomp section shall its config.json have?
type Preparation struct {
	// Container as far as config.json and the engine's files tell. It has no process, cgroup or namespace yet, and Labels
	// only where the engine keeps them in a file (Docker).
	Container engine.Container `json:"container"`
	// Annotations of config.json.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Profile is the present seccomp section of config.json; empty when there is none.
	Profile json.RawMessage `json:"profile,omitempty"`
	// Runtime that will create the container. Podman does not tell its precreate hook: it is empty then. Its digest comes with
	// the Registration: to hash it takes as long as all the rest.
	Runtime engine.Runtime `json:"runtime"`
}

// Prepared answers a Preparation.
type Prepared struct {
	// Profile is a whole LinuxSeccomp of the runtime specification, with its listenerPath; empty to leave the section as
	// it is.
	Profile json.RawMessage `json:"profile,omitempty"`
	Why     string          `json:"why"`
}

// Preparer is a Backend that brings containers under supervision as they start. Until one does, the answer is ErrNotFound.
type Preparer interface {
	Prepare(ctx context.Context, by Peer, p Preparation) (Prepared, error)
}

// prepare decodes strictly, as post does.
func (s *Server) prepare(r *http.Request) (any, error) {
	p, ok := s.Backend.(Preparer)
	if !ok {
		return nil, fmt.Errorf("prepare a container: %w: this agent does not supervise", ErrNotFound)
	}
	by, ok := r.Context().Value(peerKey{}).(Peer)
	if !ok {
		return nil, fmt.Errorf("%w: who asks is unknown", ErrForbidden)
	}
	var in Preparation
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf("%w: read the request: %w", ErrInvalid, err)
	}
	return p.Prepare(r.Context(), by, in)
}

// Prepare asks what seccomp section a container shall have.
func (c *Client) Prepare(ctx context.Context, p Preparation) (out Prepared, err error) {
	body, err := json.Marshal(p)
	if err != nil {
		return out, fmt.Errorf("marshal the request: %w", err)
	}
	resp, err := c.do(ctx, http.MethodPost, "containers/prepare", nil, body)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxBody)).Decode(&out); err != nil {
		return out, fmt.Errorf("read the agent's answer: %w", err)
	}
	return out, nil
}
