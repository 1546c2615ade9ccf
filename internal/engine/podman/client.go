// SPDX-License-Identifier: Apache-2.0

// Package podman is the engine adapter for Podman, over its unix socket. It starts and ends what it is told to, and makes
// containers with Podman's own command line: a container says by which one it was made, and nothing but that program turns
// it into a container in the same way.
//
// It speaks the libpod API and not the Docker-compatible one of the same socket: the latter lacks the image's digest, the
// cgroup path and conmon's pid, and tells neither which OCI runtime runs a container nor where its config.json is.
package podman

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
	"github.com/whittle-sec/whittle/internal/hint"
)

// DefaultSocket of the rootful Podman.
const DefaultSocket = "/run/podman/podman.sock"

// API versions: the fields read here are the same from 3.0 (Ubuntu 22.04) on, and servers keep the paths of former versions:
// Podman 5 serves 4.0.0.
const oldestMajor, pathMajor = 3, 4

const startHint = "start Podman's socket with `systemctl enable --now podman.socket`, " +
	"or without systemd `podman system service --time 0 unix://%s`"

// gone is what Podman 4 answers, with status 500, of a container that is removed while it is being looked at.
var gone = []string{"no such container", "container has already been removed", "container not known"}

// Podman is safe for use by goroutines. Make it with New.
type Podman struct {
	sockethttp.Verbs
	client *sockethttp.Client
	socket string
}

// New talks to nobody yet. An empty socket means DefaultSocket.
func New(socket string) *Podman {
	if socket == "" {
		socket = DefaultSocket
	}
	p := &Podman{socket: socket, client: sockethttp.New(socket, sockethttp.Dialect{
		Name:  "podman",
		Start: fmt.Sprintf(startHint, socket),
		List:  "podman ps --all",
		Ping:  "/libpod/_ping",
		VersionOf: func(h http.Header) (string, error) {
			if version := h.Get("Libpod-Api-Version"); version != "" {
				return version, nil
			}
			err := fmt.Errorf("%w: %s is the socket of %q", engine.ErrIncompatible, socket, printable(h.Get("Server")))
			return "", hint.Add(err, fmt.Sprintf("name Podman's own socket; "+startHint, DefaultSocket))
		},
		Base: base,
		Gone: func(answer *http.Response, cause string) bool {
			return answer.Header.Get("Libpod-Api-Version") != "" &&
				(answer.StatusCode == http.StatusNotFound || slices.Contains(gone, cause))
		},
	})}
	p.Verbs = sockethttp.NewVerbs(p.client, p.words())
	return p
}

// Socket is where its server is asked.
func (p *Podman) Socket() string { return p.socket }

// Name of the engine.
func (p *Podman) Name() string { return "podman" }

// Close gives idle connections back.
func (p *Podman) Close() { p.client.Close() }

// Version of the server ("4.3.1"), which is asked each time.
func (p *Podman) Version(ctx context.Context) (string, error) { return p.client.Version(ctx) }

func base(version string) (string, error) {
	number, _, _ := strings.Cut(version, ".")
	major, err := strconv.Atoi(number)
	if err != nil || major < oldestMajor {
		return "", hint.Add(engine.ErrIncompatible, fmt.Sprintf("Podman %d or newer is needed", oldestMajor))
	}
	return fmt.Sprintf("/v%d.0.0/libpod", min(major, pathMajor)), nil
}
