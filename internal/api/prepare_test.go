// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// preparing is a Backend that brings containers under supervision.
type preparing struct{ *fake }

func (preparing) Prepare(_ context.Context, by Peer, p Preparation) (Prepared, error) {
	if by.PID != os.Getpid() || p.Annotations["a"] != "b" || string(p.Profile) != `{"x":1}` || p.Container.ID != "c1" {
		return Prepared{}, fmt.Errorf("%w: %+v of %+v", ErrInvalid, p, by)
	}
	return Prepared{Profile: json.RawMessage(`{"defaultAction":"SCMP_ACT_ERRNO"}`), Why: "it has settled"}, nil
}

func TestPrepare(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := Server{Backend: preparing{&fake{}}, Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	c := NewClient(socket)
	defer c.Close()
	p := Preparation{Annotations: map[string]string{"a": "b"}, Profile: json.RawMessage(`{"x":1}`)}
	p.Container.ID, p.Container.State = "c1", engine.Created
	got, err := c.Prepare(t.Context(), p)
	if err != nil || string(got.Profile) != `{"defaultAction":"SCMP_ACT_ERRNO"}` || got.Why != "it has settled" {
		t.Errorf("Prepare = %s (%s), %v", got.Profile, got.Why, err)
	}
	p.Container.ID = "c2"
	if got, err := c.Prepare(t.Context(), p); err == nil {
		t.Errorf("Prepare of what the backend refuses = %+v", got)
	}
	body := strings.NewReader(`{"container":{},"future":1}`)
	dial := func(context.Context, string, string) (net.Conn, error) {
		return net.DialTimeout("unix", socket, time.Second)
	}
	web := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := web.Post("http://whittle/v1/containers/prepare", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an unknown key is answered with %s", resp.Status)
	}
}

// An agent that does not supervise says so in a way that a hook understands.
func TestPrepareUnsupported(t *testing.T) {
	c := NewClient(serve(t, &fake{}))
	defer c.Close()
	if got, err := c.Prepare(t.Context(), Preparation{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Prepare = %+v, %v; want ErrNotFound", got, err)
	}
}
