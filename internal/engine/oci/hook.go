// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// Stages of a container's life at which Whittle wants to be called.
const (
	CreateRuntime = "createRuntime" // its init, cgroup and namespaces are there, and it has made no call
	Poststop      = "poststop"      // it was deleted
	// Precreate is Podman's alone: config.json comes in on stdin and goes out on stdout. See PrecreateHook.
	Precreate = "precreate"
)

// HookTime is how long a hook holds up its container at most. Two hundred that start at once on two cores wait for each other
// that long; an agent that hangs is the only other reason.
const HookTime = 6 * time.Second

// Notice is what a hook tells the agent.
type Notice struct {
	Stage string `json:"stage"`
	// Container has only Engine and ID at Poststop.
	Container engine.Container `json:"container"`
	// Profile is the seccomp section of config.json; empty when there is none.
	Profile json.RawMessage `json:"profile,omitempty"`
	// RuntimeDigest is the "sha256:…" of the executable that runs as the OCI runtime.
	RuntimeDigest string `json:"runtime_digest,omitempty"`
}

// Hook reads a State, describes the container and hands the notice on. It returns, within HookTime, whatever happens: a hook
// that fails makes the runtime refuse the container, and Whittle must never keep a service from starting. What
// went wrong is said on stderr, which runtimes log; the agent learns of the container from the engine's events then,
// and marks it as observed late. The process should exit 0 afterwards.
func Hook(ctx context.Context, stage string, stdin io.Reader, stderr io.Writer, notify func(context.Context, Notice) error) {
	ctx, cancel := context.WithTimeout(ctx, HookTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { // reading stdin cannot be cancelled
		done <- tell(ctx, stage, stdin, notify)
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = fmt.Errorf("tell the agent about the container: %w", ctx.Err())
	}
	if err == nil {
		return
	}
	warn(stderr, err)
}

func tell(ctx context.Context, stage string, stdin io.Reader, notify func(context.Context, Notice) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("whittle hook: panic: %v\n%s", r, debug.Stack())
		}
	}()
	state, err := ReadState(stdin)
	if err != nil {
		return err
	}
	notice, err := MakeNotice(stage, state)
	if err != nil {
		return err
	}
	return notify(ctx, notice)
}

// MakeNotice must be called by the hook's own process: its parent is the OCI runtime.
func MakeNotice(stage string, s State) (Notice, error) {
	switch stage {
	case CreateRuntime:
	case Poststop:
		n := Notice{Stage: stage}
		n.Container.Engine, n.Container.ID = manager(s.Annotations), s.ID
		// Podman runs this stage itself, after the runtime has forgotten the container, and leaves the annotations out.
		if _, err := graphDir(s.Bundle, s.ID); err == nil {
			n.Container.Engine = "podman"
		} else if spec, err := readSpec(s.Bundle); err == nil && dockerRoot(spec) != "" && n.Container.Engine == "oci" {
			n.Container.Engine = "docker"
		}
		n.Container.State = engine.Exited
		return n, nil
	default:
		return Notice{}, hint.Add(fmt.Errorf("unknown hook stage %q", stage), "the stages are precreate, createRuntime and poststop")
	}
	c, spec, err := Describe(s)
	if err != nil {
		return Notice{}, err
	}
	n := Notice{Stage: stage, Container: c}
	n.Container.Runtime, n.RuntimeDigest, err = ParentRuntime()
	if err != nil {
		return Notice{}, err
	}
	if spec.Linux != nil && spec.Linux.Seccomp != nil {
		if n.Profile, err = json.Marshal(spec.Linux.Seccomp); err != nil {
			return Notice{}, fmt.Errorf("write the container's seccomp section: %w", err)
		}
	}
	return n, nil
}
