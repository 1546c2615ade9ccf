// SPDX-License-Identifier: Apache-2.0

// Package twins builds services twice, as one would run them and hardened so that they notice when they are attacked, and knows
// how they are used and how they are attacked: what time loops are tested and measured with. It starts no container.
package twins

import (
	"context"
	"fmt"

	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/load"
)

// Image of a service: an archive that every engine loads.
type Image struct {
	Name    string // "localhost/vulnd:production"
	Archive string // a file
}

// Twin is a service in two builds. Both have the same program at the same path, and listen on the port that they are told.
type Twin struct {
	Name string
	// Production and Oracle differ where Kind is "sanitizer". Where it is "audit-python" or "audit-php" they are one image: the oracle's start
	// hardens it.
	Production, Oracle Image
	Stock              Image  // the distribution's own build of the same version; no Name when there is none
	Kind               string // of the oracle, as `whittle oracle set` names it
	Port               int    // that it listens on unless it is told another

	// This machine's copies of the programs, where they are built here: exploits read addresses from production's.
	program, hardened string
	command           func(port int) []string
	talk              load.Talk
	rare, heavy       load.Talk
	more              []load.Talk
	exploit           []Exploit
}

// Exploit makes a service execute a shell, where nothing stops it.
type Exploit struct {
	Name, Doc string
	Reported  string // what is in the oracle's report of it
	// Run it against a service. Shell tells that one was executed and answered: that is proven by what it computed. The error is
	// what went wrong, in either case: a connection that is broken off is one, and what an attacked oracle does.
	Run func(ctx context.Context, target load.Target) (shell bool, err error)
}

// Command is what follows the image in `podman run`, for a service that listens on this port of 127.0.0.1.
func (t Twin) Command(port int) []string { return t.command(port) }

// Target is where a client in this network finds it.
func (t Twin) Target(port int) load.Target {
	return load.Target{Addr: fmt.Sprintf("127.0.0.1:%d", port)}
}

// Talk is an ordinary request.
func (t Twin) Talk() load.Talk { return t.talk }

// Rare is a legitimate request that needs system calls which no other does.
func (t Twin) Rare() load.Talk { return t.rare }

// Heavy is a request that keeps the service itself busy, not the kernel: what hardening costs shows here.
func (t Twin) Heavy() load.Talk { return t.heavy }

// Honest requests of every kind that there is, the ordinary and the rare one among them.
func (t Twin) Honest() []load.Talk { return append([]load.Talk{t.talk, t.rare, t.heavy}, t.more...) }

// Exploits that work against production.
func (t Twin) Exploits() []Exploit { return t.exploit }

// Load the images into a Podman.
func (t Twin) Load(ctx context.Context, e *testbed.Env) error {
	return t.load(ctx, e.Run)
}

// LoadDocker is Load for Docker.
func (t Twin) LoadDocker(ctx context.Context, d *testbed.Docker) error {
	return t.load(ctx, d.Run)
}

func (t Twin) load(ctx context.Context, run func(context.Context, ...string) (string, error)) error {
	loaded := map[string]bool{"": true}
	for _, image := range []Image{t.Production, t.Oracle, t.Stock} {
		if loaded[image.Archive] {
			continue
		}
		if _, err := run(ctx, "load", "--quiet", "--input", image.Archive); err != nil {
			return fmt.Errorf("load %s: %w", image.Name, err)
		}
		loaded[image.Archive] = true
	}
	return nil
}

// Vulnd is a small HTTP server with a stack overflow and a use after free. The directory keeps what is built.
func Vulnd(ctx context.Context, dir string) (Twin, error) {
	return alone(ctx, dir, vulnd)
}

// Memcached is built from the distribution's source, with and without a sanitizer.
func Memcached(ctx context.Context, dir string) (Twin, error) {
	return alone(ctx, dir, memcached)
}

// Flask is an application on gunicorn that evaluates what it is sent.
func Flask(ctx context.Context, dir string) (Twin, error) {
	return alone(ctx, dir, flask)
}
