// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/whittle-sec/whittle/internal/hint"
)

const (
	defaultLoops = 50
	// MaxLoops that are told of at once.
	MaxLoops = 1000
	// A name that is longer names nothing, and a spec that is longer was not written by a person.
	maxRef = 4096
	maxWhy = 4096
)

// oracleRoutes are those of time loops.
func (s *Server) oracleRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/oracles", s.get(func(r *http.Request) (any, error) {
		b, ok := s.Backend.(OracleKeeper)
		if !ok {
			return nil, noOracles()
		}
		ref, err := refParam(r)
		if err != nil {
			return nil, err
		}
		all, err := b.Oracles(r.Context(), ref)
		return append([]OracleState{}, all...), err
	}))
	mux.HandleFunc("POST /v1/oracles", byRoot(s, func(b OracleKeeper, ctx context.Context, by Peer, q OracleRequest) (OracleState, error) {
		q.By = cmp.Or(q.By, by.Name())
		return b.SetOracle(ctx, by, q)
	}, OracleRequest.check))
	mux.HandleFunc("POST /v1/oracles/remove", byRoot(s, func(b OracleKeeper, ctx context.Context, by Peer, q oracleRemoval) (struct{}, error) {
		return struct{}{}, b.RemoveOracle(ctx, by, q.Workload)
	}, oracleRemoval.check))
	mux.HandleFunc("GET /v1/loops", s.get(func(r *http.Request) (any, error) {
		b, ok := s.Backend.(LoopTeller)
		if !ok {
			return nil, noOracles()
		}
		ref, err := refParam(r)
		if err != nil {
			return nil, err
		}
		all, err := b.Loops(r.Context(), ref)
		return append([]LoopState{}, all...), err
	}))
	mux.HandleFunc("GET /v1/loops/history", s.get(s.loopHistory))
}

func (s *Server) loopHistory(r *http.Request) (any, error) {
	b, ok := s.Backend.(LoopTeller)
	if !ok {
		return nil, noOracles()
	}
	ref, err := refParam(r)
	if err != nil {
		return nil, err
	}
	limit, err := intParam(r, "limit", defaultLoops, MaxLoops)
	if err != nil {
		return nil, err
	}
	all, err := b.LoopHistory(r.Context(), ref, limit)
	return append([]LoopRecord{}, all...), err
}

// LoopHistory of one workload, or of all: the newest, at most limit, oldest first. Limit 0 is the server's choice.
func (c *Client) LoopHistory(ctx context.Context, ref string, limit int) (out []LoopRecord, err error) {
	q := url.Values{"workload": {ref}}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return out, c.get(ctx, "loops/history", q, &out)
}

func noOracles() error {
	return hint.Add(fmt.Errorf("%w: this agent runs no oracles", ErrNotFound), "an oracle needs an agent that supervises: whittle doctor says what this host lacks")
}

func refParam(r *http.Request) (string, error) {
	ref := r.FormValue("workload")
	if len(ref) > maxRef {
		return "", invalid("a workload's name of %d bytes", len(ref))
	}
	return ref, nil
}

type oracleRemoval struct {
	Workload string `json:"workload"`
}

func (r oracleRemoval) check() error {
	if r.Workload == "" || len(r.Workload) > maxRef {
		return invalid("no workload is named")
	}
	return nil
}

func (r OracleRequest) check() error {
	if r.Workload == "" || len(r.Workload) > maxRef {
		return invalid("no workload is named")
	}
	if len(r.Why) > maxWhy || len(r.By) > maxWhy {
		return invalid("a reason of more than %d bytes", maxWhy)
	}
	if err := r.Spec.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}
