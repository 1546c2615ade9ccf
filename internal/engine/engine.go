// SPDX-License-Identifier: Apache-2.0

// Package engine is what Whittle asks of a container engine: which containers there are, what each one is, and (Maker) to
// make one like another and to start and end it. It decides nothing about them; each engine's adapter is a package below it.
package engine

import (
	"context"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
)

// State of a container, as far as it matters here.
type State string

const (
	Created State = "created" // it exists, its init has not exec'd the service
	Running State = "running"
	Paused  State = "paused"
	Exited  State = "exited" // or stopped, or dead: there is no process
)

// Alive tells whether the container has a process.
func (s State) Alive() bool { return s == Running || s == Paused }

// Values of Container.Seccomp that are not the path of a profile.
const (
	SeccompDefault    = "default"    // the engine's own profile
	SeccompUnconfined = "unconfined" // no filter at all
)

// Container is a container as its engine describes it. PID, CgroupID and MountNS are set together, and only while the
// process is there.
type Container struct {
	workload.Container
	State      State     `json:"state"`
	ImageID    string    `json:"image_id,omitempty"`    // hex digits of the image's configuration
	StopSignal int       `json:"stop_signal,omitempty"` // 0: SIGTERM
	Seccomp    string    `json:"seccomp,omitempty"`     // path of a profile, SeccompDefault or SeccompUnconfined; "" unknown
	Runtime    Runtime   `json:"runtime"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	// NoNewPrivileges is half of the key of a floor: the runtime drops privileges before the filter without it.
	NoNewPrivileges bool              `json:"no_new_privileges,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
}

// Runtime is the OCI runtime that creates the container.
type Runtime struct {
	Name string `json:"name,omitempty"` // "runc", "crun"
	Path string `json:"path,omitempty"` // absolute, without symbolic links; "" unknown
}

// Engine is the least that every adapter does.
type Engine interface {
	// Name is short and lower case: "podman".
	Name() string
	// List describes the containers that have a process. Those that end meanwhile are left out; when some could not
	// be described for another reason, the others are returned with the joined errors.
	List(ctx context.Context) ([]Container, error)
	// Inspect finds a container, running or not, by its name, its id or the beginning of it.
	Inspect(ctx context.Context, id string) (Container, error)
}

// Watcher is an engine that tells when containers start, end and get another name.
type Watcher interface {
	// Watch calls f for each event until ctx is done, then returns nil, or until the engine goes away. The first event is
	// Ready: what happens after it is reported, what was there before is to be listed. f must not block for long.
	Watch(ctx context.Context, f func(Event)) error
}

// EventKind says what happened.
type EventKind string

const (
	Ready EventKind = "ready" // the stream stands
	Start EventKind = "start"
	Die   EventKind = "die"

	Rename EventKind = "rename" // it has another name; its id is the same
)

// Event of one container.
type Event struct {
	Kind EventKind `json:"kind"`
	ID   string    `json:"id,omitempty"`
	Time time.Time `json:"time"` // the engine's clock
}
