// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
)

// attachTime is what an attach to thousands of processes may take; most take milliseconds.
const attachTime = 2 * time.Minute

// superviseRoutes are those of what a Backend may do beside.
func (s *Server) superviseRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/modes", s.get(func(r *http.Request) (any, error) {
		b, ok := s.Backend.(ModeLister)
		if !ok {
			return nil, notSupervising()
		}
		return b.Modes(r.Context(), r.FormValue("workload"))
	}))
	mux.HandleFunc("POST /v1/modes", byRoot(s, func(b Moder, ctx context.Context, by Peer, c ModeChange) (ModeState, error) {
		c.By = cmp.Or(c.By, by.Name())
		return b.SetMode(ctx, by, c)
	}, ModeChange.check))
	mux.HandleFunc("POST /v1/attach", byRoot(s, Attacher.Attach, AttachRequest.check))
	mux.HandleFunc("POST /v1/seal", byRoot(s, Sealer.Seal, SealRequest.check))
	mux.HandleFunc("POST /v1/grants", byRoot(s, func(b Granter, ctx context.Context, by Peer, g GrantRequest) (GrantResult, error) {
		g.By = cmp.Or(g.By, by.Name())
		return b.Grant(ctx, by, g)
	}, GrantRequest.check))
	mux.HandleFunc("GET /v1/judge", s.get(func(r *http.Request) (any, error) {
		b, ok := s.Backend.(JudgeDesk)
		if !ok {
			return nil, notSupervising()
		}
		w, err := b.Waiting(r.Context())
		return append([]Waiting{}, w...), err
	}))
	mux.HandleFunc("POST /v1/judge", byRoot(s, func(b JudgeDesk, ctx context.Context, by Peer, j Judgement) (Judged, error) {
		j.By = cmp.Or(j.By, by.Name())
		return b.Settle(ctx, by, j)
	}, Judgement.check))
	s.oracleRoutes(mux)
}

func notSupervising() error {
	return hint.Add(fmt.Errorf("%w: this agent does not supervise", ErrNotFound), "whittle doctor says what this host lacks")
}

// byRoot asks a Backend that is a B, for privileged peers only.
func byRoot[B, In, Out any](s *Server, f func(B, context.Context, Peer, In) (Out, error), check func(In) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := func() (out Out, err error) {
			by, ok := r.Context().Value(peerKey{}).(Peer)
			if !ok || !by.Privileged() {
				return out, hint.Add(fmt.Errorf("%w: only root may change what is enforced", ErrForbidden), "run the command with sudo")
			}
			b, ok := s.Backend.(B)
			if !ok {
				return out, notSupervising()
			}
			in, err := decode[In](r)
			if err == nil {
				err = check(in)
			}
			if err != nil {
				return out, err
			}
			// The server's read timeout would end the request's context although everything was read.
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(attachTime)); err != nil {
				return out, fmt.Errorf("take time for the request: %w", err)
			}
			return f(b, r.Context(), by, in)
		}()
		if err != nil {
			s.fail(w, err)
			return
		}
		answer(w, http.StatusOK, out)
	}
}

// decode strictly: an unknown key is a client of another version, and is told so instead of half understood.
func decode[T any](r *http.Request) (in T, err error) {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return in, fmt.Errorf("%w: read the request: %w", ErrInvalid, err)
	}
	return in, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

func (c ModeChange) check() error {
	if c.Workload == "" {
		return invalid("no workload is named")
	}
	if !slices.Contains(WorkloadModes, c.Mode) {
		return invalid("unknown mode %q", c.Mode)
	}
	return nil
}

func (r AttachRequest) check() error {
	if (r.Container == "") == (r.PID == 0) || r.PID < 0 {
		return invalid("name a container or a process")
	}
	switch r.Mode {
	case "", ModeShadow, ModeEnforce:
		return nil
	}
	return invalid("attach in shadow or enforce, not in mode %q", r.Mode)
}

func (r SealRequest) check() error {
	if r.Container == "" {
		return invalid("no container is named")
	}
	return nil
}

func (g GrantRequest) check() error {
	if g.Workload == "" || g.Call == "" {
		return invalid("name a workload and a call")
	}
	if !g.Allow && len(g.Phases) > 0 {
		return invalid("a call is denied in every phase")
	}
	return nil
}
