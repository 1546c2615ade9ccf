// SPDX-License-Identifier: Apache-2.0

// Package podman is the engine adapter for Podman, over its unix socket. It reads; it never starts or stops a container.
//
// It speaks the libpod API and not the Docker-compatible one of the same socket: the latter lacks the image's digest, the
// cgroup path and conmon's pid, and tells neither which OCI runtime runs a container nor where its config.json is.
package podman

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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// DefaultSocket of the rootful Podman.
const DefaultSocket = "/run/podman/podman.sock"

const (
	// A container that is being started holds its lock, and Podman does not answer about it meanwhile.
	answerWithin = 10 * time.Second
	dialWithin   = 3 * time.Second

	maxAnswer = 64 << 20 // the list of 10,000 containers has 10 MB
	maxEvent  = 1 << 20

	// API versions: the fields read here are the same from 3.0 (Ubuntu 22.04) on, and servers keep the paths of
	// former versions: Podman 5 serves 4.0.0.
	oldestMajor, pathMajor = 3, 4
)

const startHint = "start Podman's socket with `systemctl enable --now podman.socket`, " +
	"or without systemd `podman system service --time 0 unix://%s`"

// Podman is safe for use by goroutines. Make it with New.
type Podman struct {
	socket string
	http   *http.Client

	mu   sync.Mutex
	base string // "http://podman/v4.0.0/libpod"; "" until a server was met
}

// New talks to nobody yet. An empty socket means DefaultSocket.
func New(socket string) *Podman {
	if socket == "" {
		socket = DefaultSocket
	}
	dialer := net.Dialer{Timeout: dialWithin}
	return &Podman{socket: socket, http: &http.Client{Transport: &http.Transport{
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
func (p *Podman) Name() string { return "podman" }

// Close gives idle connections back.
func (p *Podman) Close() { p.http.CloseIdleConnections() }

// Version of the server ("4.3.1"), which is asked each time.
func (p *Podman) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	response, err := p.request(ctx, "http://podman/libpod/_ping")
	if err != nil {
		return "", fmt.Errorf("ask podman for its version: %w", err)
	}
	defer response.Body.Close()
	version := response.Header.Get("Libpod-Api-Version")
	if version == "" {
		err := fmt.Errorf("ask podman for its version: %w: %s is the socket of %q", engine.ErrIncompatible, p.socket,
			printable(response.Header.Get("Server")))
		return "", hint.Add(err, fmt.Sprintf("name Podman's own socket; "+startHint, DefaultSocket))
	}
	return printable(version), nil
}

// versioned is the beginning of every address. The server is asked for its version once.
func (p *Podman) versioned(ctx context.Context) (string, error) {
	p.mu.Lock()
	base := p.base
	p.mu.Unlock()
	if base != "" {
		return base, nil
	}
	version, err := p.Version(ctx)
	if err != nil {
		return "", err
	}
	number, _, _ := strings.Cut(version, ".")
	major, err := strconv.Atoi(number)
	if err != nil || major < oldestMajor {
		err := fmt.Errorf("podman at %s has API version %s: %w", p.socket, version, engine.ErrIncompatible)
		return "", hint.Add(err, fmt.Sprintf("Podman %d or newer is needed", oldestMajor))
	}
	base = fmt.Sprintf("http://podman/v%d.0.0/libpod", min(major, pathMajor))
	p.mu.Lock()
	p.base = base
	p.mu.Unlock()
	return base, nil
}

// get decodes the answer to GET path into v.
func (p *Podman) get(ctx context.Context, path string, query url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	response, err := p.open(ctx, path, query)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read podman's answer: %w", errors.Join(engine.ErrUnavailable, err))
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("podman's answer has more than %d bytes: %w", maxAnswer, engine.ErrIncompatible)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("understand podman's answer: %w: %w", engine.ErrIncompatible, err)
	}
	return nil
}

// open returns a successful answer, whose body the caller closes.
func (p *Podman) open(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	base, err := p.versioned(ctx)
	if err != nil {
		return nil, err
	}
	address := base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	response, err := p.request(ctx, address)
	if err != nil || response.StatusCode == http.StatusOK {
		return response, err
	}
	defer response.Body.Close()
	return nil, p.refusal(response)
}

func (p *Podman) request(ctx context.Context, address string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	response, err := p.http.Do(request)
	if err == nil {
		return response, nil
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	return nil, p.unreachable(err)
}

// unreachable tells a socket that is not there from one that something else answers on.
func (p *Podman) unreachable(err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err // its address is made up, the socket's is what helps
	}
	start := fmt.Sprintf(startHint, p.socket)
	var dial *net.OpError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return hint.Add(fmt.Errorf("%w at %s: %w", engine.ErrUnavailable, p.socket, err), "run this as root")
	case errors.As(err, &dial) && dial.Op == "dial", errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ECONNRESET):
		p.mu.Lock()
		p.base = "" // the next one to answer may be another version
		p.mu.Unlock()
		return hint.Add(fmt.Errorf("%w at %s: %w", engine.ErrUnavailable, p.socket, err), start)
	case timedOut(err):
		return hint.Add(fmt.Errorf("%w at %s within %s: %w", engine.ErrUnavailable, p.socket, answerWithin, err), start)
	case errors.Is(err, io.EOF):
		return hint.Add(fmt.Errorf("%w at %s: it hung up", engine.ErrUnavailable, p.socket), start)
	}
	return hint.Add(fmt.Errorf("%w at %s: %s", engine.ErrIncompatible, p.socket, printable(err.Error())), start)
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// gone is what Podman 4 answers, with status 500, of a container that is removed while it is being looked at.
var gone = []string{"no such container", "container has already been removed", "container not known"}

// refusal makes an error of an answer other than 200.
func (p *Podman) refusal(response *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("podman answers %s: %w", printable(response.Status), err)
	}
	var said struct{ Message, Cause string }
	if json.Unmarshal(body, &said) != nil {
		said.Message = string(bytes.TrimSpace(body))
	}
	if response.Header.Get("Libpod-Api-Version") != "" && (response.StatusCode == http.StatusNotFound || slices.Contains(gone, said.Cause)) {
		err := fmt.Errorf("%w: %s", engine.ErrUnknownContainer, printable(said.Message))
		return hint.Add(err, "see which containers there are with `podman ps --all`")
	}
	return fmt.Errorf("podman answers %s: %s", printable(response.Status), printable(said.Message))
}
