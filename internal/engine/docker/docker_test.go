// SPDX-License-Identifier: Apache-2.0

package docker

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

// serve answers on a unix socket, like a server that is not Docker or is another version of it.
func serve(t *testing.T, h http.HandlerFunc) *Docker {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(listener)
	d := New(socket)
	t.Cleanup(func() {
		d.Close()
		server.Close()
	})
	return d
}

// dockerd answers pings as that version, and everything else with h.
func dockerd(version string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", version)
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			io.WriteString(w, "OK")
		case strings.HasSuffix(r.URL.Path, "/info"):
			io.WriteString(w, `{"CgroupDriver":"systemd","Runtimes":{"runc":{"path":"runc"},"whittle":{"path":"/var/lib/whittle/runtime/docker/whittle-runc"}}}`)
		default:
			h(w, r)
		}
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
			d := New(tt.socket)
			defer d.Close()
			_, err := d.List(t.Context())
			if !errors.Is(err, engine.ErrUnavailable) || !strings.Contains(hint.Of(err), "systemctl start docker") {
				t.Errorf("List = %v (hint %q), want ErrUnavailable with how to start it", err, hint.Of(err))
			}
			if err := d.Watch(t.Context(), func(engine.Event) {}); !errors.Is(err, engine.ErrUnavailable) {
				t.Errorf("Watch = %v, want ErrUnavailable", err)
			}
		})
	}
}

func TestNotDocker(t *testing.T) {
	say := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
	}
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
	}{
		{"a web server", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", "nginx\x1b")
			http.Error(w, "not found", http.StatusNotFound)
		}},
		{"an old docker", dockerd("1.12", nil)},
		{"no version", dockerd("one\x1b", nil)},
		{"version 2", dockerd("2.0", nil)},
		{"not JSON", dockerd("1.41", say("<html>"))},
		{"another shape", dockerd("1.41", say(`{"Id":[1]}`))},
		{"no id", dockerd("1.41", say(`{}`))},
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

// A server is asked in its own version: Docker 29 serves nothing below 1.44.
func TestVersions(t *testing.T) {
	for version, want := range map[string]string{"1.24": "/v1.24/", "1.41": "/v1.41/", "1.54": "/v1.54/"} {
		got := ""
		d := serve(t, dockerd(version, func(w http.ResponseWriter, r *http.Request) {
			got = r.URL.Path
			io.WriteString(w, "[]")
		}))
		if _, err := d.List(t.Context()); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("API %s was asked for %s (%v), want %s…", version, got, err, want)
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
			in.ID, in.Path = strings.Repeat("ab", 32), "sh"
			in.State.Status, in.State.Pid = "running", tt.pid
			text, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			c, err := serve(t, dockerd("1.41", func(w http.ResponseWriter, _ *http.Request) { w.Write(text) })).Inspect(t.Context(), "abc")
			if err != nil || c.State != engine.Exited || c.PID != 0 || c.CgroupID != 0 || c.MountNS != 0 {
				t.Errorf("Inspect = %+v, %v; want it to have exited", c, err)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	for _, tt := range []struct {
		name, text, seccomp string
		nnp                 bool
	}{
		{"nothing asked", `{}`, "default", false},
		{"a profile", `{"HostConfig":{"SecurityOpt":["seccomp={\"defaultAction\":\"SCMP_ACT_ERRNO\"}"]}}`, "", false},
		{"the built-in one", `{"HostConfig":{"SecurityOpt":["seccomp=builtin"]}}`, "default", false},
		{"unconfined", `{"HostConfig":{"SecurityOpt":["seccomp:unconfined","no-new-privileges:true"]}}`, "unconfined", true},
		{"privileged", `{"HostConfig":{"Privileged":true,"SecurityOpt":["no-new-privileges=false"]}}`, "unconfined", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in inspection
			if err := json.Unmarshal([]byte(tt.text), &in); err != nil {
				t.Fatal(err)
			}
			if c := describe(in); c.Seccomp != tt.seccomp || c.NoNewPrivileges != tt.nnp {
				t.Errorf("seccomp %q, no_new_privs %v; want %q, %v", c.Seccomp, c.NoNewPrivileges, tt.seccomp, tt.nnp)
			}
		})
	}
}

// A container of Whittle's wrapper was created by the runtime behind it.
func TestWrappedRuntime(t *testing.T) {
	d := serve(t, dockerd("1.41", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"Id":"abc","HostConfig":{"Runtime":"whittle"}}`)
	}))
	c, err := d.Inspect(t.Context(), "abc")
	if err != nil || c.Runtime.Name != "runc" {
		t.Errorf("Inspect = %+v, %v; want runc", c.Runtime, err)
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
		{"ends", event("start", late) + event("die", late) + event("exec_create: sh", late), 2, engine.ErrUnavailable},
		{"before it was watched", event("start", 1), 0, engine.ErrUnavailable},
		{"not JSON", "hello\n", 0, engine.ErrIncompatible},
		{"no container", `{"Type":"container","Action":"start","timeNano":1}` + "\n", 0, engine.ErrIncompatible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := serve(t, dockerd("1.41", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, tt.stream) }))
			got := -1 // Ready
			err := d.Watch(t.Context(), func(engine.Event) { got++ })
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
