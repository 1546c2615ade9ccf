// SPDX-License-Identifier: Apache-2.0

// Package docker is the engine adapter for Docker, over its unix socket. It reads; it never starts or stops a container.
//
// It asks with plain HTTP, as Docker's own client library would: three addresses, of which the fields read here have been the same
// since API 1.24.
package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// DefaultSocket of the rootful Docker.
const DefaultSocket = "/run/docker.sock"

const (
	answerWithin = 10 * time.Second
	dialWithin   = 3 * time.Second

	maxAnswer = 64 << 20 // the list of 10,000 containers has 10 MB
	maxEvent  = 1 << 20

	oldestMinor = 24 // of API 1: Docker 1.12
)

const startHint = "start Docker with `systemctl start docker`; its socket was looked for at %s"

// Docker is safe for use by goroutines. Make it with New.
type Docker struct {
	socket string
	http   *http.Client

	mu   sync.Mutex
	base string // "http://docker/v1.41"; "" until a server was met
	info *hostInfo
}

// New talks to nobody yet. An empty socket means DefaultSocket.
func New(socket string) *Docker {
	if socket == "" {
		socket = DefaultSocket
	}
	dialer := net.Dialer{Timeout: dialWithin}
	return &Docker{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:          4,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: answerWithin,
		DisableCompression:    true, // a small answer must not become a big one
	}}}
}

// Name of the engine.
func (d *Docker) Name() string { return "docker" }

// Close gives idle connections back.
func (d *Docker) Close() { d.http.CloseIdleConnections() }

// Version of the server's API ("1.41"), which is asked each time.
func (d *Docker) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	response, err := d.request(ctx, "http://docker/_ping")
	if err != nil {
		return "", fmt.Errorf("ask docker for its version: %w", err)
	}
	defer response.Body.Close()
	if response.Header.Get("Libpod-Api-Version") != "" {
		err := fmt.Errorf("ask docker for its version: %w: %s is Podman's socket", engine.ErrIncompatible, d.socket)
		return "", hint.Add(err, "give it to --docker instead")
	}
	version := response.Header.Get("Api-Version")
	if version == "" {
		err := fmt.Errorf("ask docker for its version: %w: %s is the socket of %q", engine.ErrIncompatible, d.socket,
			printable(response.Header.Get("Server")))
		return "", hint.Add(err, "name Docker's own socket: "+DefaultSocket)
	}
	return printable(version), nil
}

// versioned is the beginning of every address. The server is asked for its version once, and spoken to in it: newer servers
// refuse old ones.
func (d *Docker) versioned(ctx context.Context) (string, error) {
	d.mu.Lock()
	base := d.base
	d.mu.Unlock()
	if base != "" {
		return base, nil
	}
	version, err := d.Version(ctx)
	if err != nil {
		return "", err
	}
	minor, err := strconv.Atoi(strings.TrimPrefix(version, "1."))
	if err != nil || minor < oldestMinor || !strings.HasPrefix(version, "1.") {
		err := fmt.Errorf("docker at %s has API version %s: %w", d.socket, version, engine.ErrIncompatible)
		return "", hint.Add(err, "Docker 1.12 or newer is needed")
	}
	base = fmt.Sprintf("http://docker/v1.%d", minor)
	d.mu.Lock()
	d.base = base
	d.mu.Unlock()
	return base, nil
}

// get decodes the answer to GET path into v.
func (d *Docker) get(ctx context.Context, path string, query url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	response, err := d.open(ctx, path, query)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read docker's answer: %w", errors.Join(engine.ErrUnavailable, err))
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("docker's answer has more than %d bytes: %w", maxAnswer, engine.ErrIncompatible)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("understand docker's answer: %w: %w", engine.ErrIncompatible, err)
	}
	return nil
}

// open returns a successful answer, whose body the caller closes.
func (d *Docker) open(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	base, err := d.versioned(ctx)
	if err != nil {
		return nil, err
	}
	address := base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	response, err := d.request(ctx, address)
	if err != nil || response.StatusCode == http.StatusOK {
		return response, err
	}
	defer response.Body.Close()
	return nil, d.refusal(response)
}

func (d *Docker) request(ctx context.Context, address string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	response, err := d.http.Do(request)
	if err == nil {
		return response, nil
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	return nil, d.unreachable(err)
}

// unreachable tells a socket that is not there from one that something else answers on.
func (d *Docker) unreachable(err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err // its address is made up, the socket's is what helps
	}
	start := fmt.Sprintf(startHint, d.socket)
	var dial *net.OpError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return hint.Add(fmt.Errorf("%w at %s: %w", engine.ErrUnavailable, d.socket, err), "run this as root")
	case errors.As(err, &dial) && dial.Op == "dial", errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ECONNRESET):
		d.mu.Lock()
		d.base, d.info = "", nil // the next one to answer may be another version
		d.mu.Unlock()
		return hint.Add(fmt.Errorf("%w at %s: %w", engine.ErrUnavailable, d.socket, err), start)
	case timedOut(err):
		return hint.Add(fmt.Errorf("%w at %s within %s: %w", engine.ErrUnavailable, d.socket, answerWithin, err), start)
	case errors.Is(err, io.EOF):
		return hint.Add(fmt.Errorf("%w at %s: it hung up", engine.ErrUnavailable, d.socket), start)
	}
	return hint.Add(fmt.Errorf("%w at %s: %s", engine.ErrIncompatible, d.socket, printable(err.Error())), start)
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// refusal makes an error of an answer other than 200.
func (d *Docker) refusal(response *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("docker answers %s: %w", printable(response.Status), err)
	}
	var said struct{ Message string }
	if json.Unmarshal(body, &said) != nil {
		said.Message = string(bytes.TrimSpace(body))
	}
	if response.Header.Get("Api-Version") != "" && response.StatusCode == http.StatusNotFound {
		err := fmt.Errorf("%w: %s", engine.ErrUnknownContainer, printable(said.Message))
		return hint.Add(err, "see which containers there are with `docker ps --all`")
	}
	return fmt.Errorf("docker answers %s: %s", printable(response.Status), printable(said.Message))
}
