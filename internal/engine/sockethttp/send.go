// SPDX-License-Identifier: Apache-2.0

package sockethttp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// Order is what an engine is asked to do.
type Order struct {
	Method string // POST by default
	Path   string
	Query  url.Values
	Body   any // JSON; nil is none
	// Within is what the engine may take to do it, besides what it may always take to answer.
	Within time.Duration
	// Also are answers besides 2xx that are no failure: 304 says that it is so already.
	Also []int
}

// Refusal is an answer that says no.
type Refusal struct {
	Engine  string
	Status  int
	Text    string // of the status, printable
	Message string // printable
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s answers %s: %s", r.Engine, r.Text, r.Message)
}

// Refused tells whether an engine answered with this status.
func Refused(err error, status int) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Status == status
}

// Send asks for a change and decodes what the engine answers into v, which may be nil. What was asked for and not answered
// is engine.ErrOutcomeUnknown: nobody asks twice on its behalf.
func (c *Client) Send(ctx context.Context, o Order, v any) (status int, err error) {
	base, err := c.versioned(ctx)
	if err != nil {
		return 0, err
	}
	answer, done, err := c.order(ctx, base, o)
	if err != nil {
		return 0, err
	}
	defer done()
	if answer.StatusCode/100 != 2 && !slices.Contains(o.Also, answer.StatusCode) {
		return answer.StatusCode, c.refusal(answer)
	}
	if v == nil {
		return answer.StatusCode, nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return answer.StatusCode, fmt.Errorf("read %s's answer: %w", c.Name, errors.Join(engine.ErrOutcomeUnknown, err))
	}
	if len(body) > maxAnswer {
		return answer.StatusCode, fmt.Errorf("%s's answer has more than %d bytes: %w", c.Name, maxAnswer, engine.ErrIncompatible)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return answer.StatusCode, fmt.Errorf("understand %s's answer: %w: %w", c.Name, engine.ErrIncompatible, err)
	}
	return answer.StatusCode, nil
}

// order dials for itself: a request on a connection that the server just closed would fail after it may have been read.
func (c *Client) order(ctx context.Context, base string, o Order) (*http.Response, func(), error) {
	var body io.Reader
	if o.Body != nil {
		text, err := json.Marshal(o.Body)
		if err != nil {
			return nil, nil, fmt.Errorf("make request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	address := base + o.Path
	if len(o.Query) > 0 {
		address += "?" + o.Query.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, o.Within+answerWithin)
	request, err := http.NewRequestWithContext(ctx, cmp.Or(o.Method, http.MethodPost), address, body)
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.orders.Do(request)
	if err == nil {
		return answer, func() { answer.Body.Close(); cancel() }, nil
	}
	late := ctx.Err()
	cancel()
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return nil, nil, c.unreachable(err) // nothing was asked
	}
	if late == nil {
		late = c.unreachable(err)
	}
	err = fmt.Errorf("%w: %s did not answer: %w", engine.ErrOutcomeUnknown, c.Name, late)
	return nil, nil, hint.Add(err, "see what became of it with `"+c.List+"`")
}
