// SPDX-License-Identifier: Apache-2.0

// Package holder is a small process of its own that keeps a duplicate of every seccomp listener, so that held calls wait
// instead of failing when the agent dies, is replaced or is not there yet. It owns the socket to which OCI runtimes hand
// listeners over. It judges nothing: with an agent it only keeps and hands on, and without one it refuses what has waited
// too long. It neither injects filters nor wakes threads whose notification a dead agent has taken along.
package holder

import (
	"errors"
	"log/slog"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Where the holder is found, and how long a call waits for an agent, unless told otherwise.
const (
	DefaultControl  = "/run/whittle/holder.sock"
	DefaultListener = "/run/whittle/seccomp.sock"
	DefaultWait     = 30 * time.Second
	defaultLinger   = time.Minute
)

// ErrLost is returned, wrapped, when the holder has died or has turned to a newer agent.
var ErrLost = errors.New("the holder is lost")

// ErrReplaced is returned, wrapped, when the holder has turned to a newer agent. It is an ErrLost too.
var ErrReplaced = errors.New("another agent has connected to the holder")

// Kept is one listener. What a runtime said of it is as trustworthy as the user that ran the runtime: only UID, Received,
// Exec and FD are the holder's own word.
type Kept struct {
	ID          uint64            `json:"id"`
	Container   string            `json:"container"`             // the OCI id
	PID         int               `json:"pid,omitempty"`         // as the runtime sees it
	Metadata    string            `json:"metadata,omitempty"`    // listenerMetadata of the profile
	Bundle      string            `json:"bundle,omitempty"`      // the bundle's directory
	Annotations map[string]string `json:"annotations,omitempty"` // those that are not too long
	UID         uint32            `json:"uid"`                   // of the peer that sent it
	Received    time.Time         `json:"received"`
	Exec        bool              `json:"exec,omitempty"` // the container had another listener already
	Injected    bool              `json:"injected,omitempty"`
	FD          int               `json:"-"` // in the receiver, which owns it
}

// Refused is what the holder refused of one container while no agent was there.
type Refused struct {
	Container string        `json:"container"`
	Call      syscalls.Call `json:"call,omitzero"` // the zero Call for numbers that Whittle does not know, and where there were too many
	Count     uint64        `json:"count"`
	Since     time.Time     `json:"since"`
	Last      time.Time     `json:"last"`
}

// Config of a holder. Paths are absolute.
type Config struct {
	Control  string        // the agent's socket, mode 0600
	Listener string        // the runtimes' socket, mode 0660 with a group, else 0600
	Group    string        // may hand listeners over; none where it does not exist
	Wait     time.Duration // how long a call waits for an agent; 0 is DefaultWait
	Linger   time.Duration // how long a holder that keeps nothing waits for an agent before it ends; 0 is a minute, negative for ever
	Log      *slog.Logger
}

func (c Config) defaults() Config {
	if c.Control == "" {
		c.Control = DefaultControl
	}
	if c.Listener == "" {
		c.Listener = DefaultListener
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	if c.Linger == 0 {
		c.Linger = defaultLinger
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
