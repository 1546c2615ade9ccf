// SPDX-License-Identifier: Apache-2.0

package sockethttp

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func dialect() Dialect {
	return Dialect{
		Name: "moby", Start: "start it", List: "moby ls", Ping: "/ping",
		VersionOf: func(h http.Header) (string, error) {
			if h.Get("V") == "" {
				return "", engine.ErrIncompatible
			}
			return h.Get("V"), nil
		},
		Base: func(version string) (string, error) { return "/v" + version, nil },
		Gone: func(answer *http.Response, cause string) bool {
			return answer.StatusCode == http.StatusGone || cause == "gone"
		},
	}
}

// serve answers pings as version 1, and everything else with h.
func serve(t *testing.T, d Dialect, h http.HandlerFunc) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("V", "1")
		if r.URL.Path != "/ping" {
			h(w, r)
		}
	})}
	go server.Serve(l) // until it is closed
	c := New(socket, d)
	t.Cleanup(func() {
		c.Close()
		server.Close()
	})
	return c
}

func say(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, text)
	}
}

// endless writes more than is read.
func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := strings.Repeat(" ", 1<<20)
	for range maxAnswer>>20 + 2 {
		if _, err := io.WriteString(w, chunk); err != nil {
			return
		}
	}
}

func hijacked(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			io.WriteString(conn, text)
			conn.Close()
		}
	}
}

func TestGet(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		want error  // nil: another
		hint string // contains
	}{
		{"not JSON", say(200, "<html>"), engine.ErrIncompatible, ""},
		{"another shape", say(200, `{"A":[1]}`), engine.ErrIncompatible, ""},
		{"endless", endless, engine.ErrIncompatible, ""},
		{"not HTTP", hijacked("220 mail.example ESMTP\r\n\r\n"), engine.ErrIncompatible, "start it"},
		{"hangs up", hijacked(""), engine.ErrUnavailable, "start it"},
		{"is gone", say(http.StatusGone, `{"message":"no\u001b such"}`), engine.ErrUnknownContainer, "moby ls"},
		{"is gone, in its words", say(500, `{"cause":"gone"}`), engine.ErrUnknownContainer, "moby ls"},
		{"fails", say(500, "oh\x1b"), nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var v struct{ A string }
			err := serve(t, dialect(), tt.h).Get(t.Context(), "/x", nil, &v)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("Get = %v, want %v", err, tt.want)
			}
			if strings.Contains(err.Error(), "\x1b") || !strings.Contains(hint.Of(err), tt.hint) {
				t.Errorf("Get = %q (hint %q)", err, hint.Of(err))
			}
		})
	}
}

// The answer of a server that hangs is not waited for longer than the caller wants.
func TestHanging(t *testing.T) {
	met := make(chan struct{}, 1)
	c := serve(t, dialect(), func(_ http.ResponseWriter, r *http.Request) {
		met <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-met
		cancel()
	}()
	if err := c.Get(ctx, "/x", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Get = %v, want Canceled", err)
	}
}

// A server that was lost is asked for its version again.
func TestLost(t *testing.T) {
	d := dialect()
	var lost atomic.Int32
	var asked []string
	d.Lost = func() { lost.Add(1) }
	c := serve(t, d, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		io.WriteString(w, `"x"`)
	})
	var v string
	if err := c.Get(t.Context(), "/x", url.Values{"a": {"b c"}}, &v); err != nil || v != "x" || asked[0] != "/v1/x?a=b+c" {
		t.Fatalf("Get = %q, %v; it was asked for %q", v, err, asked)
	}
	c.Close()
	c.http = New(filepath.Join(t.TempDir(), "none"), d).http
	if err := c.Get(t.Context(), "/x", nil, &v); !errors.Is(err, engine.ErrUnavailable) || lost.Load() != 1 || c.base != "" {
		t.Errorf("Get = %v; lost %d times, the base is %q", err, lost.Load(), c.base)
	}
}

func parse(line []byte) (e engine.Event, ok bool, err error) {
	var in struct {
		ID string
		At int64
	}
	err = json.Unmarshal(line, &in)
	e.ID, e.Time = in.ID, time.Unix(in.At, 0)
	return e, err == nil, err
}

func TestWatch(t *testing.T) {
	const late = `{"ID":"a","At":9000000000}` + "\n"
	for _, tt := range []struct {
		name, stream string
		want         int
		err          error
	}{
		{"ends", late + "\n" + late, 2, engine.ErrUnavailable},
		{"before it was watched", `{"ID":"a","At":1}` + "\n" + late, 1, engine.ErrUnavailable},
		{"no container", `{"At":9000000000}` + "\n", 0, engine.ErrIncompatible},
		{"endless line", strings.Repeat("x", maxEvent+1), 0, engine.ErrIncompatible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := -1 // Ready
			err := serve(t, dialect(), say(200, tt.stream)).Watch(t.Context(), url.Values{}, parse, func(engine.Event) { got++ })
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%d events, %v; want %d, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// What is removed while the list is made is left out; another failure is told, and takes nothing from the others.
func TestRunning(t *testing.T) {
	c := serve(t, dialect(), say(200, `[{"Id":"a"},{"Id":"gone"},{"Id":"bad"},{"Id":"exited"},{"Id":"b"}]`))
	bad := errors.New("bad")
	got, err := c.Running(t.Context(), nil, func(_ context.Context, id string) (out engine.Container, err error) {
		out.ID, out.State = id, engine.Running
		switch id {
		case "gone":
			err = c.Unknown("")
		case "bad":
			err = bad
		case "exited":
			out.State = engine.Exited
		}
		return out, err
	})
	if len(got) != 2 || got[0].ID != "a" || got[1].ID != "b" || !errors.Is(err, bad) || errors.Is(err, engine.ErrUnknownContainer) {
		t.Errorf("Running = %+v, %v", got, err)
	}
}
