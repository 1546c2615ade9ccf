// SPDX-License-Identifier: Apache-2.0

package sockethttp

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
	"syscall"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// unreachable tells a socket that is not there from one that something else answers on.
func (c *Client) unreachable(err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err // its address is made up, the socket's is what helps
	}
	var dial *net.OpError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return hint.Add(fmt.Errorf("%w at %s: %w", engine.ErrUnavailable, c.socket, err), "run this as root")
	case errors.As(err, &dial) && dial.Op == "dial", errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ECONNRESET):
		c.lost()
		return hint.Add(fmt.Errorf("%w at %s: %w", engine.ErrUnavailable, c.socket, err), c.Start)
	case timedOut(err):
		return hint.Add(fmt.Errorf("%w at %s within %s: %w", engine.ErrUnavailable, c.socket, answerWithin, err), c.Start)
	case errors.Is(err, io.EOF):
		return hint.Add(fmt.Errorf("%w at %s: it hung up", engine.ErrUnavailable, c.socket), c.Start)
	}
	return hint.Add(fmt.Errorf("%w at %s: %s", engine.ErrIncompatible, c.socket, Printable(err.Error())), c.Start)
}

// lost: the next server to answer may have another version.
func (c *Client) lost() {
	c.mu.Lock()
	c.base = ""
	c.mu.Unlock()
	if c.Lost != nil {
		c.Lost()
	}
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// refusal makes an error of an answer other than 200.
func (c *Client) refusal(answer *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("%s answers %s: %w", c.Name, Printable(answer.Status), err)
	}
	var said struct{ Message, Cause string }
	if json.Unmarshal(body, &said) != nil {
		said.Message = string(bytes.TrimSpace(body))
	}
	if c.Gone(answer, said.Cause) {
		return c.Unknown(Printable(said.Message))
	}
	return &Refusal{Engine: c.Name, Status: answer.StatusCode, Text: Printable(answer.Status), Message: Printable(said.Message)}
}

// Unknown is an engine.ErrUnknownContainer with what helps; why may be empty.
func (c *Client) Unknown(why string) error {
	err := engine.ErrUnknownContainer
	if why != "" {
		err = fmt.Errorf("%w: %s", err, why)
	}
	return hint.Add(err, "see which containers there are with `"+c.List+"`")
}
