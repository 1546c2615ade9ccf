// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
)

const (
	// maxConns bounds what a misbehaving member of the group can hold open.
	maxConns       = 256
	requestTimeout = 10 * time.Second
	defaultEvents  = 100
	maxEvents      = 10_000
)

type peerKey struct{}

// Server answers at a socket from a Backend.
type Server struct {
	Backend Backend
	Version string
	Log     *slog.Logger
	// Drain is how long those who follow events are kept after Serve's context has ended, for the backend's last words;
	// 0 is a second. It is over as soon as Backend.Follow returns.
	Drain time.Duration
	// patience with a request that is being read, for tests; 0 is requestTimeout.
	patience time.Duration
}

// Serve until ctx is done; then requests under way are cancelled and have Drain to end. It closes l.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler(ctx),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       cmp.Or(s.patience, requestTimeout),
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return late },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		drain, cancelDrain := context.WithTimeout(late, cmp.Or(s.Drain, time.Second))
		defer cancelDrain()
		if srv.Shutdown(drain) != nil {
			cancel()
			srv.Close()
		}
	}()
	err := srv.Serve(peerListener{l, make(chan struct{}, maxConns)})
	if ctx.Err() == nil {
		return fmt.Errorf("serve the socket: %w", err)
	}
	<-done
	return nil
}

// Handler of the endpoints. Every one of them asks who is there first.
func (s *Server) Handler() http.Handler { return s.handler(context.Background()) }

// handler of requests that end with stop, except those who follow events: these hear how it ended.
func (s *Server) handler(stop context.Context) http.Handler {
	all := http.NewServeMux()
	all.HandleFunc("GET /v1/events/follow", s.follow)
	all.Handle("/", endWith(stop, s.requests()))
	return s.guard(all)
}

func endWith(stop context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(stop, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (s *Server) requests() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.get(func(r *http.Request) (any, error) {
		return s.Backend.Status(r.Context())
	}))
	mux.HandleFunc("GET /v1/workloads", s.get(func(r *http.Request) (any, error) {
		return s.Backend.Workloads(r.Context())
	}))
	mux.HandleFunc("GET /v1/policies/{ref}", s.get(s.policy))
	mux.HandleFunc("GET /v1/policies/{ref}/history", s.get(func(r *http.Request) (any, error) {
		return s.Backend.History(r.Context(), r.PathValue("ref"))
	}))
	mux.HandleFunc("GET /v1/policies/{ref}/floor", s.get(func(r *http.Request) (any, error) {
		return s.Backend.Floor(r.Context(), r.PathValue("ref"))
	}))
	mux.HandleFunc("POST /v1/policies", post(s, func(ctx context.Context, in importRequest) error {
		return s.Backend.Import(ctx, in.Policy, in.Why)
	}))
	mux.HandleFunc("POST /v1/exports", post(s, s.Backend.RecordExport))
	mux.HandleFunc("POST /v1/containers", post(s, byPeer(s.Backend.Register)))
	mux.HandleFunc("POST /v1/containers/prepare", s.get(s.prepare))
	mux.HandleFunc("POST /v1/containers/gone", post(s, byPeer(s.Backend.Gone)))
	mux.HandleFunc("GET /v1/events", s.get(s.events))
	s.superviseRoutes(mux)
	mux.HandleFunc("/", s.get(func(r *http.Request) (any, error) {
		return nil, fmt.Errorf("%w: %s %s", ErrNotFound, r.Method, r.URL.Path)
	}))
	return mux
}

type importRequest struct {
	Policy policy.Policy `json:"policy"`
	Why    string        `json:"why"`
}

func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(VersionHeader, s.Version)
		p, ok := r.Context().Value(peerKey{}).(Peer)
		gid, hasGroup := whittleGroup()
		if !ok || !p.mayTalk(uint32(os.Geteuid()), gid, hasGroup) {
			s.Log.Warn("refused a client", "uid", p.UID, "pid", p.PID)
			answer(w, http.StatusForbidden, problem{
				Error: "only root and members of the group " + Group + " may talk to the agent",
				Hint:  "run the command with sudo, or: sudo groupadd -f whittle && sudo usermod -aG whittle $USER",
			})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) get(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			s.fail(w, err)
			return
		}
		answer(w, http.StatusOK, v)
	}
}

func post[T any](s *Server, f func(context.Context, T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		in, err := decode[T](r)
		if err != nil {
			s.fail(w, err)
			return
		}
		if err := f(r.Context(), in); err != nil {
			s.fail(w, err)
			return
		}
		answer(w, http.StatusOK, struct{}{})
	}
}

// byPeer tells f who asks; guard has seen to it that this is known.
func byPeer[T any](f func(context.Context, Peer, T) error) func(context.Context, T) error {
	return func(ctx context.Context, in T) error {
		p, ok := ctx.Value(peerKey{}).(Peer)
		if !ok {
			return fmt.Errorf("%w: who asks is unknown", ErrForbidden)
		}
		return f(ctx, p, in)
	}
}

func (s *Server) policy(r *http.Request) (any, error) {
	version, err := intParam(r, "version", 0, 1<<30)
	if err != nil {
		return nil, err
	}
	return s.Backend.PolicyVersion(r.Context(), r.PathValue("ref"), version)
}

func (s *Server) events(r *http.Request) (any, error) {
	after, err := intParam(r, "after", 0, 1<<53)
	if err != nil {
		return nil, err
	}
	limit, err := intParam(r, "limit", defaultEvents, maxEvents)
	if err != nil {
		return nil, err
	}
	oldest, err := intParam(r, "oldest", 0, 1)
	if err != nil {
		return nil, err
	}
	q := EventQuery{
		After: int64(after), Limit: limit, Workload: r.FormValue("workload"), Kind: r.FormValue("kind"), Oldest: oldest == 1,
	}
	return s.Backend.Events(r.Context(), q)
}

// follow streams one event a line, until the client goes away or the backend has sent its last one. Only the latter ends
// the stream in good order: a client can tell.
func (s *Server) follow(w http.ResponseWriter, r *http.Request) {
	after, err := intParam(r, "after", 0, 1<<53)
	if err != nil {
		s.fail(w, err)
		return
	}
	ctl := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	enc := json.NewEncoder(w)
	err = errors.Join(ctl.SetReadDeadline(time.Time{}), ctl.Flush())
	if err == nil {
		err = s.Backend.Follow(r.Context(), int64(after), func(e Event) error {
			// A reader that stops reading must not hold the agent's events.
			return errors.Join(ctl.SetWriteDeadline(time.Now().Add(requestTimeout)), enc.Encode(e), ctl.Flush())
		})
	}
	s.Log.Debug("an event stream ended", "err", err)
	if err != nil {
		panic(http.ErrAbortHandler) // this is how net/http cuts a chunked answer short
	}
}

func intParam(r *http.Request, name string, unset, most int) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return unset, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%w: %s must be a number from 0 to %d", ErrInvalid, name, most)
	}
	return n, nil
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, ErrForbidden):
		code = http.StatusForbidden
		s.Log.Warn("refused a request", "err", err)
	case errors.As(err, &tooLarge):
		code = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrInvalid):
		code = http.StatusBadRequest
	}
	if code == http.StatusInternalServerError {
		s.Log.Error("a request failed", "err", err)
	}
	answer(w, code, problem{Error: err.Error(), Hint: hint.Of(err)})
}

func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"marshal the answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A client that hung up is no fault of ours, and there is nobody left to tell.
	_, _ = w.Write(append(body, '\n'))
}
