// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// serve answers on a unix socket, like a server that is not Podman or is another version of it.
func serve(t *testing.T, h http.HandlerFunc) *Podman {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(listener)
	p := New(socket)
	t.Cleanup(func() {
		p.Close()
		server.Close()
	})
	return p
}

// libpod answers pings as that version, and everything else with h.
func libpod(version string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Libpod-Api-Version", version)
		if strings.HasSuffix(r.URL.Path, "/_ping") {
			io.WriteString(w, "OK")
			return
		}
		h(w, r)
	}
}

func TestNoEngine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, socket string }{
		{"absent", filepath.Join(dir, "absent")},
		{"not a socket", file},
		{"path too long", "/" + strings.Repeat("x", 200)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := New(tt.socket)
			defer p.Close()
			_, err := p.List(t.Context())
			if !errors.Is(err, engine.ErrUnavailable) || !strings.Contains(hint.Of(err), "systemctl enable --now podman.socket") {
				t.Errorf("List = %v (hint %q), want ErrUnavailable with how to start it", err, hint.Of(err))
			}
			if err := p.Watch(t.Context(), func(engine.Event) {}); !errors.Is(err, engine.ErrUnavailable) {
				t.Errorf("Watch = %v, want ErrUnavailable", err)
			}
		})
	}
}

func TestNotPodman(t *testing.T) {
	dockers := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "Docker/20.10 (linux)\x1b")
		http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
	}
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
	}{
		{"docker", dockers},
		{"podman 2", libpod("2.2.1", nil)},
		{"no version", libpod("one\x1b", nil)},
		{"not JSON", libpod("4.3.1", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") })},
		{"another shape", libpod("4.3.1", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"Id":[1]}`) })},
		{"no id", libpod("4.3.1", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := serve(t, tt.h).Inspect(t.Context(), "x")
			if !errors.Is(err, engine.ErrIncompatible) {
				t.Fatalf("Inspect = %+v, %v; want ErrIncompatible", c, err)
			}
			if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("the error is not printable: %q", err)
			}
		})
	}
}

// Versions serve the paths of their major version, and those of former ones.
func TestVersions(t *testing.T) {
	for version, want := range map[string]string{"3.4.4": "/v3.0.0/", "4.3.1": "/v4.0.0/", "5.4.2": "/v4.0.0/"} {
		got := ""
		p := serve(t, libpod(version, func(w http.ResponseWriter, r *http.Request) {
			got = r.URL.Path
			io.WriteString(w, "[]")
		}))
		if _, err := p.List(t.Context()); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("podman %s was asked for %s (%v), want %s…", version, got, err, want)
		}
	}
}

// A pid that is gone, or that now belongs to a process in another cgroup, is not the container's.
func TestReusedPID(t *testing.T) {
	for _, tt := range []struct {
		name string
		pid  int
	}{
		{"gone", 1 << 30},
		{"another's", os.Getpid()},
		{"none", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in inspection
			in.ID, in.Path = "abc", "sh"
			in.State.Status, in.State.Pid, in.State.CgroupPath = "running", tt.pid, "/libpod_parent/libpod-abc"
			text, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			c, err := serve(t, libpod("4.3.1", func(w http.ResponseWriter, _ *http.Request) { w.Write(text) })).Inspect(t.Context(), "abc")
			if err != nil || c.State != engine.Exited || c.PID != 0 || c.CgroupID != 0 || c.MountNS != 0 {
				t.Errorf("Inspect = %+v, %v; want it to have exited", c, err)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	for _, tt := range []struct{ name, text, digest, seccomp string }{
		{"a digest", `{"Image":"aa","ImageDigest":"sha256:bb"}`, "sha256:bb", "default"},
		{"none", `{"Image":"aa"}`, "sha256:aa", "default"},
		{"no image", `{"Rootfs":"/srv"}`, "", "default"},
		{"a profile", `{"HostConfig":{"SecurityOpt":["seccomp=/etc/p.json"]}}`, "", "/etc/p.json"},
		{"privileged", `{"HostConfig":{"Privileged":true}}`, "", "unconfined"},
		{"privileged with a profile", `{"HostConfig":{"Privileged":true,"SecurityOpt":["seccomp=/p"]}}`, "", "/p"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in inspection
			if err := json.Unmarshal([]byte(tt.text), &in); err != nil {
				t.Fatal(err)
			}
			c := describe(in)
			if c.Workload.Digest != tt.digest || c.Seccomp != tt.seccomp {
				t.Errorf("digest %q, seccomp %q; want %q, %q", c.Workload.Digest, c.Seccomp, tt.digest, tt.seccomp)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	for text, want := range map[string]int{`3`: 3, `15`: 15, `"SIGQUIT"`: 3, `"quit"`: 3, `"3"`: 3, `"nonsense"`: 0, `99`: 0, `null`: 0, ``: 0, `{}`: 0} {
		if got := signal(json.RawMessage(text)); got != want {
			t.Errorf("signal(%s) = %d, want %d", text, got, want)
		}
	}
}

func TestWatchStream(t *testing.T) {
	event := func(action string, nano int64) string {
		return fmt.Sprintf(`{"Type":"container","Action":%q,"Actor":{"ID":"abc"},"timeNano":%d}`+"\n", action, nano)
	}
	const late = 1 << 62
	for _, tt := range []struct {
		name, stream string
		want         int
		err          error
	}{
		{"ends", event("start", late) + event("died", late) + event("die", late) + event("exec", late), 3, engine.ErrUnavailable},
		{"before it was watched", event("start", 1), 0, engine.ErrUnavailable},
		{"not JSON", "hello\n", 0, engine.ErrIncompatible},
		{"no container", `{"Type":"container","Action":"start","timeNano":1}` + "\n", 0, engine.ErrIncompatible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, libpod("4.3.1", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, tt.stream) }))
			got := -1 // Ready
			err := p.Watch(t.Context(), func(engine.Event) { got++ })
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%d events, %v; want %d, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(`{"Type":"container","Action":"start","Actor":{"ID":"abc"},"timeNano":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		event, ok, err := parseEvent(line)
		if ok && (err != nil || event.Kind == "") {
			t.Errorf("parseEvent(%q) = %+v, %v", line, event, err)
		}
	})
}

// Podman 4 answers 500 when a container is removed between its lookup and its description.
func TestRemovedMeanwhile(t *testing.T) {
	for _, cause := range gone {
		t.Run(cause, func(t *testing.T) {
			p := serve(t, libpod("4.3.1", func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusInternalServerError)
				io.WriteString(w, `{"cause":"`+cause+`","message":"container x does not exist in database: `+cause+`","response":500}`)
			}))
			if c, err := p.Inspect(t.Context(), "x"); !errors.Is(err, engine.ErrUnknownContainer) {
				t.Errorf("Inspect = %+v, %v; want ErrUnknownContainer", c, err)
			}
		})
	}
}
