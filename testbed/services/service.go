// SPDX-License-Identifier: Apache-2.0

// Package services describes real services of the Debian distribution and what is done to them in their lives: load, reload,
// rotation of logs, backup, failover. Each runs unmodified in an OCI container whose root is an overlay over the host's, so
// that every installed package is "in the image" and the host is not written. The corpus is recorded from them, and the
// panel of judges is evaluated with them. It judges nothing itself.
package services

import (
	"context"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Service of the distribution.
type Service struct {
	Name     string
	Packages []string // of apt: the service's own, and its clients'
	Doc      string

	// How it is started: Args is run as process 1 of the container, in the foreground. User is "" for root, else a name that the
	// package has made; Env is beside PATH.
	Args []string
	Env  []string
	User string
	// Files and Dirs are made in its root before anything runs there; a path is absolute. /run, /tmp and /var/tmp are empty at
	// first. What a directory of Hide has on the host is not seen, whatever else is made in it.
	Dirs  []Dir
	Files []File
	Hide  []string
	// Prepare are commands that are run in its root first, outside of the container: they are not observed.
	Prepare []Command
	// ExtraCaps are capabilities beside Docker's default ones, "CAP_…".
	ExtraCaps []string
	// StopSignal is what ends it; 0 is SIGTERM.
	StopSignal unix.Signal
	// Logs are files with what it has to say when something fails.
	Logs []string

	// Ready tries it: nil says that it serves.
	Ready func(context.Context, *Instance) error
	Ops   []Op
}

// Op is something that is done to a running service. Do returns an error unless it saw that it has worked.
type Op struct {
	Name string
	Doc  string
	// Rare operations are what a service seldom does: nobody should expect them in a learning period. The others are load,
	// and may be repeated.
	Rare bool
	// Last is an operation after which the service may be gone.
	Last bool
	Do   func(context.Context, *Instance) error
}

// Dir of a service's root. Owner is "user" or "user:group" of the host's accounts, "" for root.
type Dir struct {
	Path  string
	Owner string
	Mode  fs.FileMode // 0 is 0o755
}

// File of a service's root.
type File struct {
	Path  string
	Text  string
	Owner string
	Mode  fs.FileMode // 0 is 0o644
}

// Command that is run in a service's root.
type Command struct {
	User string // "" for root
	Args []string
}

// Op by its name.
func (s Service) Op(name string) (Op, bool) {
	for _, op := range s.Ops {
		if op.Name == name {
			return op, true
		}
	}
	return Op{}, false
}

// All services, in the order of the catalogue.
func All() (out []Service) {
	for _, group := range catalogue() {
		out = append(out, group()...)
	}
	return out
}

// Find a service by its name.
func Find(name string) (Service, bool) {
	for _, s := range All() {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}
