// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/whittle-sec/whittle/internal/hint"
)

// Prepare answers with the seccomp section that a container shall have; nil leaves the one that it has.
type Prepare func(context.Context, Draft) (json.RawMessage, error)

// PrecreateHook reads a config.json and writes it again, with the seccomp section that the agent wants. Whatever happens it
// returns within HookTime and writes what it has read: Podman runs the container with what comes out, and takes an
// empty answer for a failure. The process should exit 0 afterwards.
func PrecreateHook(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, prepare Prepare) {
	ctx, cancel := context.WithTimeout(ctx, HookTime)
	defer cancel()
	config, err := io.ReadAll(io.LimitReader(stdin, maxSpec+1))
	out := config
	switch {
	case err != nil:
		err = fmt.Errorf("read config.json: %w", err)
	case len(config) > maxSpec:
		err = fmt.Errorf("read config.json: more than %d bytes", maxSpec)
	default:
		out, err = prepared(ctx, config, "", prepare)
	}
	if err != nil {
		warn(stderr, err)
	}
	rest := io.Reader(bytes.NewReader(out))
	if len(config) > maxSpec { // what was not read passes all the same
		rest = io.MultiReader(rest, stdin)
	}
	if _, err := io.Copy(stdout, rest); err != nil {
		warn(stderr, fmt.Errorf("write config.json: %w", err))
	}
}

// prepared is the config.json to use, which is the given one when there is an error. It does not outlive ctx, whatever prepare
// does.
func prepared(ctx context.Context, config []byte, id string, prepare Prepare) ([]byte, error) {
	type result struct {
		config []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("prepare a container: panic: %v\n%s", p, debug.Stack())
			}
			done <- r
		}()
		r.config, r.err = rewrite(ctx, config, id, prepare)
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return config, r.err
		}
		return r.config, nil
	case <-ctx.Done():
		return config, fmt.Errorf("ask the agent how the container shall start: %w", ctx.Err())
	}
}

func rewrite(ctx context.Context, config []byte, id string, prepare Prepare) ([]byte, error) {
	draft, err := MakeDraft(config, id)
	if err != nil {
		return nil, err
	}
	if draft.Off() {
		return config, nil
	}
	profile, err := prepare(ctx, draft)
	if err != nil || len(profile) == 0 {
		return config, err
	}
	return WithProfile(config, profile)
}

// warn of what keeps a container from being supervised, which must not keep it from starting.
func warn(w io.Writer, err error) {
	fmt.Fprintf(w, "whittle: warning: %v; the container starts without\n", err)
	if h := hint.Of(err); h != "" {
		fmt.Fprintf(w, "whittle: hint: %s\n", h)
	}
}
