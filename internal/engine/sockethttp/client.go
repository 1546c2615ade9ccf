// SPDX-License-Identifier: Apache-2.0

// Package sockethttp asks an engine that answers HTTP at a unix socket. What it asks for and what the answers mean is for the
// engine's adapter to know, but for what Podman and Docker have in common: the verbs that begin and end a container, and the
// shape of what they say of one.
//
// It speaks plain HTTP, as the engines' own client libraries would: the few addresses that adapters need do not pay for one.
package sockethttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/workload"
)

const (
	// A container that is being started holds its lock, and Podman does not answer about it meanwhile.
	answerWithin = 10 * time.Second
	dialWithin   = 3 * time.Second

	maxAnswer = 64 << 20 // the list of 10,000 containers has 10 MB
	maxEvent  = 1 << 20
)

// Dialect is what engines differ in. All of it must be there but Lost.
type Dialect struct {
	Name  string // of the engine, in errors: "docker"
	Start string // how to start it, for a person
	List  string // the command that lists its containers: "docker ps --all"

	Ping string // the path that tells the version without knowing it: "/_ping"
	// VersionOf the server that answers a ping; an error wraps engine.ErrIncompatible.
	VersionOf func(http.Header) (string, error)
	// Base of all other paths, for a server of that version: "/v1.41".
	Base func(version string) (string, error)
	// Gone tells whether an answer other than 200 says that there is no such container. The cause is in the engine's words.
	Gone func(answer *http.Response, cause string) bool
	// Lost is called when the server is not there: the next one may be another.
	Lost func()
}

// Client is safe for use by goroutines. Make it with New.
type Client struct {
	Dialect
	socket string
	http   *http.Client
	orders *http.Client // without a limit of its own, and with a connection for each

	mu   sync.Mutex
	base string // "http://docker/v1.41"; "" until a server was met
}

// New talks to nobody yet.
func New(socket string, d Dialect) *Client {
	dialer := net.Dialer{Timeout: dialWithin}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", socket)
	}
	return &Client{
		Dialect: d,
		socket:  socket,
		http: &http.Client{Transport: &http.Transport{
			DialContext:           dial,
			MaxIdleConns:          4,
			IdleConnTimeout:       30 * time.Second,
			ResponseHeaderTimeout: answerWithin,
			DisableCompression:    true, // a small answer must not become a big one
		}},
		orders: &http.Client{
			Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Printable makes what an engine said fit for a message.
func Printable(s string) string { return workload.Printable(s, 200) }

// Version of the server, which is asked each time.
func (c *Client) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answer, err := c.request(ctx, "http://"+c.Name+c.Ping)
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", c.Name, err)
	}
	defer answer.Body.Close()
	version, err := c.VersionOf(answer.Header)
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", c.Name, err)
	}
	return Printable(version), nil
}

// versioned is the beginning of every address. The server is asked for its version once.
func (c *Client) versioned(ctx context.Context) (string, error) {
	c.mu.Lock()
	base := c.base
	c.mu.Unlock()
	if base != "" {
		return base, nil
	}
	version, err := c.Version(ctx)
	if err != nil {
		return "", err
	}
	path, err := c.Base(version)
	if err != nil {
		return "", fmt.Errorf("%s at %s has API version %s: %w", c.Name, c.socket, version, err)
	}
	base = "http://" + c.Name + path
	c.mu.Lock()
	c.base = base
	c.mu.Unlock()
	return base, nil
}

// Get decodes the answer to GET path into v.
func (c *Client) Get(ctx context.Context, path string, query url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answer, err := c.open(ctx, path, query)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read %s's answer: %w", c.Name, errors.Join(engine.ErrUnavailable, err))
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("%s's answer has more than %d bytes: %w", c.Name, maxAnswer, engine.ErrIncompatible)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("understand %s's answer: %w: %w", c.Name, engine.ErrIncompatible, err)
	}
	return nil
}

// open returns a successful answer, whose body the caller closes.
func (c *Client) open(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	base, err := c.versioned(ctx)
	if err != nil {
		return nil, err
	}
	address := base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	answer, err := c.request(ctx, address)
	if err != nil || answer.StatusCode == http.StatusOK {
		return answer, err
	}
	defer answer.Body.Close()
	return nil, c.refusal(answer)
}

func (c *Client) request(ctx context.Context, address string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	answer, err := c.http.Do(request)
	if err == nil {
		return answer, nil
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	return nil, c.unreachable(err)
}
