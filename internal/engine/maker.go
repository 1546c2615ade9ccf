// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"
)

var (
	// ErrOutcomeUnknown means that an engine was asked to change something and did not answer in time: it may have done
	// so, or do so yet. Look before trying again; what Make may have made is found by its name.
	ErrOutcomeUnknown = errors.New("whether the engine did it is not known")
	// ErrNotReproducible means that a container cannot be made again exactly; Blueprint.Problems say why.
	ErrNotReproducible = errors.New("it cannot be made again exactly")
	// ErrDifferent means that what was made again was not the same, and was removed.
	ErrDifferent = errors.New("what was made differs from what it was made like")
	// ErrRunning means that a container has a process, and must not have one for what was asked.
	ErrRunning = errors.New("the container runs")
	// ErrNameTaken means that another container has that name.
	ErrNameTaken = errors.New("another container has that name")
	// ErrAddressTaken means that another container has the address that one was made with; it does not start.
	ErrAddressTaken = errors.New("another container has its address")
)

// Maker is an engine that makes and ends containers on whittle's behalf.
//
// The id of every method may be a name, as for Inspect; whoever renames containers had better keep ids.
type Maker interface {
	Engine
	// Blueprint tells what a successor of this container would be made of, and what stands in the way (Problems).
	Blueprint(ctx context.Context, id string) (Blueprint, error)
	// Make another container like it, changed; it is created, and not started. Its id. What was made is compared with what
	// it was made like, and removed when it differs (ErrDifferent) in anything but the changes. It gets the volumes of the
	// first, those without a name, too, and the host's ports that were found for it: it cannot run beside the first then.
	// No image is pulled.
	//
	// An error that is ErrOutcomeUnknown leaves it open whether there is one: it has Changes.Name, which is why that must
	// not be empty, and which Inspect finds. A second Make with the same name fails with ErrNameTaken then.
	Make(ctx context.Context, like string, c Changes) (string, error)
	// Start one that is created or has ended. Nil when it runs already.
	Start(ctx context.Context, id string) error
	// Stop sends the stop signal, after within SIGKILL, and returns when there is no process any more; when the engine
	// removes the container with it (AutoRemove), when that is done. Nil when it is stopped already. ctx must leave it
	// more time than within.
	Stop(ctx context.Context, id string, within time.Duration) error
	// Kill sends a signal and does not wait for what it does.
	Kill(ctx context.Context, id string, signal int) error
	// Remove only one that does not run (else ErrRunning). Its volumes stay, those without a name, too: they are its
	// successor's. Nil when there is none.
	Remove(ctx context.Context, id string) error
	Rename(ctx context.Context, id, name string) error
	// Exit of one that has ended.
	Exit(ctx context.Context, id string) (Exit, error)
	// Logs are the last lines of what it wrote, bounded and printable.
	Logs(ctx context.Context, id string, lines int) (string, error)
}

// Initializer is a Maker that can do everything but the service's exec, so that a later Start takes no time.
type Initializer interface {
	Init(ctx context.Context, id string) error
}

// HealthChecker is an engine that knows of health checks. Health runs one where the engine does that on demand (Podman),
// and else tells what its last one said (Docker): not healthy may mean not yet.
type HealthChecker interface {
	Health(ctx context.Context, id string) (has, healthy bool, err error)
}

// NetworkMode says whose network namespace a container is in: one of the constants, or "container:ID", "pod:ID", "ns:PATH".
type NetworkMode string

const (
	NetworkHost    NetworkMode = "host"
	NetworkNone    NetworkMode = "none"    // one of its own, without interfaces but the loopback
	NetworkPrivate NetworkMode = "private" // one of its own, which the engine connects and removes with the container
)

// Container is the full id of the container whose namespace it shares.
func (m NetworkMode) Container() (id string, ok bool) {
	return strings.CutPrefix(string(m), "container:")
}

// Pod is the id of the pod whose namespace it shares.
func (m NetworkMode) Pod() (id string, ok bool) { return strings.CutPrefix(string(m), "pod:") }

// Path of the namespace, of one that was named.
func (m NetworkMode) Path() (path string, ok bool) { return strings.CutPrefix(string(m), "ns:") }

// PublishedPort is a port of the host that leads to one of the container.
type PublishedPort struct {
	HostIP        netip.Addr `json:"host_ip,omitzero"` // not valid: every address of the host
	HostPort      uint16     `json:"host_port"`
	ContainerPort uint16     `json:"container_port"`
	Protocol      string     `json:"protocol"` // "tcp", "udp", "sctp"
}

// Attachment of a container to one of its engine's networks.
type Attachment struct {
	Network string `json:"network"`          // its name
	Driver  string `json:"driver,omitempty"` // "bridge", "macvlan"; "" unknown
	// Fixed tells that the container was made with its address: it has this one or does not start.
	Fixed bool `json:"fixed,omitempty"`
	// Askable tells that a successor can be made with the address that this one got (AddressKeep). Where the engine knows only
	// when it is asked, it stands for that.
	Askable bool `json:"askable,omitempty"`
}

// Addressing says which addresses a container that is made asks its networks for.
type Addressing string

const (
	AddressAsMade Addressing = ""     // those that the first was made with; others are the engine's choice at each start
	AddressKeep   Addressing = "keep" // those that the first has, too, where that can be asked for: they are fixed then
	AddressAny    Addressing = "any"  // none, not even those that the first was made with
)

// Mount of a container: a volume, or a bind of a host's path. File systems in memory (tmpfs) are none: nobody shares them.
type Mount struct {
	Volume      string `json:"volume,omitempty"` // its name; "" is a bind
	Source      string `json:"source,omitempty"` // on the host
	Destination string `json:"destination"`
	ReadOnly    bool   `json:"read_only,omitempty"`
}

// Blueprint is what a successor of a container would be made of.
type Blueprint struct {
	Container
	Network NetworkMode `json:"network"`
	// NetworkKept tells that the namespace outlives the container.
	NetworkKept bool            `json:"network_kept,omitempty"`
	Ports       []PublishedPort `json:"ports,omitempty"`
	Addresses   []netip.Addr    `json:"addresses,omitempty"` // in a private network, while it runs
	Networks    []Attachment    `json:"networks,omitempty"`  // of a private one, by name; none where it is connected otherwise
	Volumes     []Mount         `json:"volumes,omitempty"`
	SystemdUnit string          `json:"systemd_unit,omitempty"` // a unit manages it
	// AutoRemove tells that the engine removes the container when it ends. A successor has it too.
	AutoRemove     bool          `json:"auto_remove,omitempty"`
	RestartPolicy  string        `json:"restart_policy,omitempty"` // as the engine says it; "" and "no": none
	HasHealthcheck bool          `json:"has_healthcheck,omitempty"`
	StopTimeout    time.Duration `json:"stop_timeout,omitempty"`
	Env            []string      `json:"-"` // NAME=VALUE, as its process gets them: they hold secrets, and are printed nowhere
	// Problems say why it cannot be made again exactly. Make refuses while there are any.
	Problems []string `json:"problems,omitempty"`
}

// Changes are what a successor has other than its predecessor. The zero value changes nothing but what cannot be the same.
type Changes struct {
	Name       string            `json:"name,omitempty"`    // required by Make
	Seccomp    string            `json:"seccomp,omitempty"` // path of a profile, SeccompUnconfined; "" as it is
	Image      string            `json:"image,omitempty"`   // "" the very same, even if its name means another by now
	Command    []string          `json:"command,omitempty"` // nil as it is
	Entrypoint *[]string         `json:"entrypoint,omitempty"`
	Env        map[string]string `json:"env,omitempty"`    // besides, or instead of those of the same name
	Mounts     []Mount           `json:"mounts,omitempty"` // besides
	Labels     map[string]string `json:"labels,omitempty"` // besides
	// Address is kept for one that is started when the first has ended. A network that does not take the wish is not asked.
	Address Addressing `json:"address,omitempty"`
	// NoRestart leaves out the restart policy: the engine does not start it by itself, neither when it ends nor with the host.
	NoRestart bool `json:"no_restart,omitempty"`
}

// Exit of a container that has ended.
type Exit struct {
	Code  int       `json:"code"` // 128 + n for signal n
	OOM   bool      `json:"oom,omitempty"`
	At    time.Time `json:"at,omitzero"`
	Error string    `json:"error,omitempty"` // of the engine or the runtime, printable
}
