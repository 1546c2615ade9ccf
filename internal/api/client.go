// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"golang.org/x/sys/unix"
)

// ErrNotRunning is returned, wrapped with the socket's path, when no agent answers.
var ErrNotRunning = errors.New("the agent is not running")

const (
	maxAnswer = 64 << 20
	maxLine   = 1 << 20
)

// Client of an agent. It is safe for use by several goroutines.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient for the agent at a socket. It does not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{
		Transport: &http.Transport{DialContext: dial, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
	}}
}

// Close idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Status of the agent and of every container it knows.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.get(ctx, "status", nil, &s)
}

// Workloads that have a policy.
func (c *Client) Workloads(ctx context.Context) (s []Summary, err error) {
	return s, c.get(ctx, "workloads", nil, &s)
}

// Policy of a workload, its newest version.
func (c *Client) Policy(ctx context.Context, ref string) (policy.Policy, error) {
	return c.PolicyVersion(ctx, ref, 0)
}

// PolicyVersion of a workload.
func (c *Client) PolicyVersion(ctx context.Context, ref string, version int) (p policy.Policy, err error) {
	q := url.Values{"version": {strconv.Itoa(version)}}
	return p, c.get(ctx, "policies/"+url.PathEscape(ref), q, &p)
}

// History of a policy, oldest first.
func (c *Client) History(ctx context.Context, ref string) (h []Revision, err error) {
	return h, c.get(ctx, "policies/"+url.PathEscape(ref)+"/history", nil, &h)
}

// Floor measured for a workload's runtimes: names by ABI.
func (c *Client) Floor(ctx context.Context, ref string) (f map[string][]string, err error) {
	return f, c.get(ctx, "policies/"+url.PathEscape(ref)+"/floor", nil, &f)
}

// Import a policy.
func (c *Client) Import(ctx context.Context, p policy.Policy, why string) error {
	return c.post(ctx, "policies", importRequest{p, why})
}

// RecordExport of a profile.
func (c *Client) RecordExport(ctx context.Context, e Export) error { return c.post(ctx, "exports", e) }

// Register a container. It is observed when this returns nil.
func (c *Client) Register(ctx context.Context, r Registration) error {
	return c.post(ctx, "containers", r)
}

// Gone tells the agent that a container was deleted.
func (c *Client) Gone(ctx context.Context, g Gone) error { return c.post(ctx, "containers/gone", g) }

// Events of the journal, oldest first.
func (c *Client) Events(ctx context.Context, q EventQuery) (e []Event, err error) {
	v := url.Values{"after": {strconv.FormatInt(q.After, 10)}}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Workload != "" {
		v.Set("workload", q.Workload)
	}
	if q.Kind != "" {
		v.Set("kind", q.Kind)
	}
	if q.Oldest {
		v.Set("oldest", "1")
	}
	return e, c.get(ctx, "events", v, &e)
}

// Follow calls send with each event after the given ID, until ctx is done or send fails. It returns nil when the agent
// stopped and has sent its last event.
func (c *Client) Follow(ctx context.Context, after int64, send func(Event) error) error {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}}
	resp, err := c.do(ctx, http.MethodGet, "events/follow", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		if err := send(e); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := lines.Err(); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) {
		return hint.Add(errors.New("follow events: the agent died, or stopped without its last events"), "whittle event list has what it stored")
	} else if err != nil {
		return fmt.Errorf("follow events: %w", err)
	}
	return nil
}

func (c *Client) get(ctx context.Context, path string, q url.Values, out any) error {
	resp, err := c.do(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}

func (c *Client) post(ctx context.Context, path string, in any) error {
	return c.ask(ctx, path, in, &struct{}{})
}

// ask posts a request and reads the answer.
func (c *Client) ask(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("marshal the request: %w", err)
	}
	resp, err := c.do(ctx, http.MethodPost, path, nil, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}

func oneParam(name, value string) url.Values {
	if value == "" {
		return nil
	}
	return url.Values{name: {value}}
}

// do returns an answer with status 200; everything else becomes an error with the agent's words and hint.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	u := "http://whittle/v1/" + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// explain why the agent could not be reached.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return hint.Add(fmt.Errorf("%w at %s", ErrNotRunning, c.socket),
			"start it with: "+c.start())
	case errors.Is(err, os.ErrPermission):
		return hint.Add(fmt.Errorf("not allowed to open %s", c.socket),
			"run the command with sudo, or join the group "+Group+": sudo usermod -aG whittle $USER")
	}
	return fmt.Errorf("ask the agent: %w", err)
}

func refusal(resp *http.Response) error {
	var p problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxLine)).Decode(&p); err != nil || p.Error == "" {
		return hint.Add(fmt.Errorf("the answer is not a whittle agent's (status %d)", resp.StatusCode),
			"check what listens at --socket")
	}
	err := errors.New(p.Error)
	if resp.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w", remote{p.Error, ErrNotFound})
	}
	if p.Hint != "" {
		return hint.Add(err, p.Hint)
	}
	return err
}

// remote is an agent's error whose kind survived the journey.
type remote struct {
	text string
	kind error
}

func (r remote) Error() string { return r.text }
func (r remote) Unwrap() error { return r.kind }

// start is the command that starts the agent which this client asks.
func (c *Client) start() string {
	if c.socket == DefaultSocket {
		return "sudo whittle agent"
	}
	return "sudo whittle agent --socket " + c.socket
}
