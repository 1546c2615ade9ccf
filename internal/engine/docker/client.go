// SPDX-License-Identifier: Apache-2.0

// Package docker is the engine adapter for Docker, over its unix socket. It starts and ends what it is told to, and makes
// containers of what Docker says about another: the two configurations, passed on as they are.
//
// The fields that are read here have been the same since API 1.24.
package docker

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
	"github.com/whittle-sec/whittle/internal/hint"
)

// DefaultSocket of the rootful Docker.
const DefaultSocket = "/run/docker.sock"

const oldestMinor = 24 // of API 1: Docker 1.12

// Docker is safe for use by goroutines. Make it with New.
type Docker struct {
	sockethttp.Verbs
	client *sockethttp.Client
	socket string

	mu   sync.Mutex
	info *hostInfo
}

// New talks to nobody yet. An empty socket means DefaultSocket.
func New(socket string) *Docker {
	if socket == "" {
		socket = DefaultSocket
	}
	d := &Docker{socket: socket}
	d.client = sockethttp.New(socket, sockethttp.Dialect{
		Name:  "docker",
		Start: "start Docker with `systemctl start docker`; its socket was looked for at " + socket,
		List:  "docker ps --all",
		Ping:  "/_ping",
		VersionOf: func(h http.Header) (string, error) {
			if h.Get("Libpod-Api-Version") != "" {
				return "", hint.Add(fmt.Errorf("%w: %s is Podman's socket", engine.ErrIncompatible, socket), "give it to --podman instead")
			}
			if version := h.Get("Api-Version"); version != "" {
				return version, nil
			}
			err := fmt.Errorf("%w: %s is the socket of %q", engine.ErrIncompatible, socket, printable(h.Get("Server")))
			return "", hint.Add(err, "name Docker's own socket: "+DefaultSocket)
		},
		Base: base,
		Gone: func(answer *http.Response, _ string) bool {
			return answer.Header.Get("Api-Version") != "" && answer.StatusCode == http.StatusNotFound
		},
		Lost: func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.info = nil
		},
	})
	d.Verbs = sockethttp.NewVerbs(d.client, d.words())
	return d
}

// Socket is where its server is asked.
func (d *Docker) Socket() string { return d.socket }

// Name of the engine.
func (d *Docker) Name() string { return "docker" }

// Close gives idle connections back.
func (d *Docker) Close() { d.client.Close() }

// Version of the server's API ("1.41"), which is asked each time.
func (d *Docker) Version(ctx context.Context) (string, error) { return d.client.Version(ctx) }

// base of a server's paths is its own version: newer servers refuse old ones.
func base(version string) (string, error) {
	minor, err := strconv.Atoi(strings.TrimPrefix(version, "1."))
	if err != nil || minor < oldestMinor || !strings.HasPrefix(version, "1.") {
		return "", hint.Add(engine.ErrIncompatible, "Docker 1.12 or newer is needed")
	}
	return fmt.Sprintf("/v1.%d", minor), nil
}
