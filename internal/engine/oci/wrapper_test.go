// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseCall(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		want       Call
		creates    bool
	}{
		{"docker's", "--root /var/run/docker/runtime-runc/moby --log /run/x/log.json --log-format json create --bundle /run/x --pid-file /run/x/init.pid abc",
			Call{Command: "create", ID: "abc", Bundle: "/run/x", Log: "/run/x/log.json", LogFormat: "json"}, true},
		{"with =", "--log=/l --systemd-cgroup create --bundle=/b --no-pivot abc", Call{Command: "create", ID: "abc", Bundle: "/b", Log: "/l"}, true},
		{"by hand", "run -d -b /b abc", Call{Command: "run", ID: "abc", Bundle: "/b"}, true},
		{"here", "run abc", Call{Command: "run", ID: "abc"}, true},
		{"crun's order", "--cgroup-manager cgroupfs create abc --bundle /b", Call{Command: "create", ID: "abc", Bundle: "/b"}, true},
		{"another command", "--root /r state abc", Call{Command: "state", ID: "abc"}, false},
		{"exec of create", "exec abc create x", Call{Command: "exec", ID: "abc"}, false},
		{"another config", "create -f other.json abc", Call{}, false},
		{"nothing", "--version", Call{}, false},
		{"no id", "create --bundle /b", Call{Command: "create", Bundle: "/b"}, false},
		{"a value is missing", "create --bundle", Call{Command: "create"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ParseCall(strings.Fields(tt.args))
			if got != tt.want || got.Creates() != tt.creates {
				t.Errorf("ParseCall(%s) = %+v, creates: %v", tt.args, got, got.Creates())
			}
		})
	}
}

const (
	bare    = `{"process":{"args":["/bin/x"]},"future":{"big":12345678901234567890},"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}}`
	profile = `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/l"}`
)

func answers(profile string, err error) Prepare {
	return func(context.Context, Draft) (json.RawMessage, error) { return json.RawMessage(profile), err }
}

func TestRewrite(t *testing.T) {
	off := strings.Replace(bare, "{", `{"annotations":{"whittle.mode":"off"},`, 1)
	for _, tt := range []struct {
		name, config string
		prepare      Prepare
		section      string // "" when nothing changes
		says         string
	}{
		{"a profile", bare, answers(profile, nil), profile, ""},
		{"no profile", bare, answers("", nil), `{"defaultAction":"SCMP_ACT_ERRNO"}`, ""},
		{"no agent", bare, answers("", ErrNoAgent), "", ""},
		{"an error", bare, answers(profile, errors.New("oops")), "", "oops"},
		{"no profile at all", bare, answers(`{"x":1}`, nil), "", "no seccomp section"},
		{"nonsense", bare, answers(`}`, nil), "", "no seccomp section"},
		{"a panic", bare, func(context.Context, Draft) (json.RawMessage, error) { panic("boom") }, "", "boom"},
		{"left alone", off, answers(profile, nil), "", ""},
		{"ambiguous", strings.Replace(bare, `"linux"`, `"Linux":{},"linux"`, 1), answers(profile, nil), "", "more than once"},
		{"not JSON", `{`, answers(profile, nil), "", "understand"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			name := filepath.Join(dir, "config.json")
			if err := os.WriteFile(name, []byte(tt.config), 0o640); err != nil {
				t.Fatal(err)
			}
			w := Wrapper{Whittle: "/usr/bin/whittle", Socket: "/s", Runtime: "/proc/self/exe", Prepare: tt.prepare}
			err := w.Rewrite(t.Context(), Call{Command: "create", ID: "abc", Bundle: dir})
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("Rewrite: %v, want %q", err, tt.says)
			}
			got, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("%d files are there (%v)", len(left), err)
			}
			if tt.section == "" {
				if string(got) != tt.config {
					t.Errorf("it changed to %s", got)
				}
				return
			}
			rewritten(t, name, got, tt.section)
			if err := w.Rewrite(t.Context(), Call{ID: "abc", Bundle: dir}); err != nil {
				t.Fatal(err)
			}
			if again, err := os.ReadFile(name); err != nil || !bytes.Equal(again, got) {
				t.Errorf("a second time: %s (%v)", again, err)
			}
		})
	}
}

func rewritten(t *testing.T, name string, got []byte, section string) {
	t.Helper()
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v (%v)", st.Mode(), err)
	}
	if !bytes.Contains(got, []byte(`"big":12345678901234567890`)) || !bytes.Contains(got, []byte(`"seccomp":`+section)) {
		t.Errorf("config.json is %s", got)
	}
	spec, err := parseSpec(got)
	if err != nil || spec.Hooks == nil || len(spec.Hooks.CreateRuntime) != 1 || len(spec.Hooks.Poststop) != 1 {
		t.Fatalf("the hooks are %+v (%v)", spec, err)
	}
	if h := spec.Hooks.CreateRuntime[0]; h.Path != "/usr/bin/whittle" || strings.Join(h.Args, " ") != "whittle hook createRuntime --socket /s" {
		t.Errorf("the hook is %+v", h)
	}
}

// A bundle is left alone when nobody answers in time.
func TestRewriteHangs(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "config.json")
	if err := os.WriteFile(name, []byte(bare), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan struct{})
	defer close(end)
	w := Wrapper{Runtime: "/proc/self/exe", Prepare: func(context.Context, Draft) (json.RawMessage, error) {
		cancel()
		<-end // deaf
		return nil, nil
	}}
	if err := w.Rewrite(ctx, Call{ID: "abc", Bundle: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("Rewrite: %v", err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != bare {
		t.Errorf("config.json is %s (%v)", got, err)
	}
}

func TestPrecreateHook(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	podmans := strings.Replace(bare, `{"seccomp"`, `{"cgroupsPath":"user.slice:libpod:`+id+`","seccomp"`, 1)
	podmans = strings.Replace(podmans, "{", `{"annotations":{"io.container.manager":"libpod"},`, 1)
	long := strings.Repeat(" ", maxSpec) + podmans
	for _, tt := range []struct {
		name, config string
		prepare      Prepare
		want, says   string
	}{
		{"a profile", podmans, answers(profile, nil), strings.Replace(podmans, `{"defaultAction":"SCMP_ACT_ERRNO"}`, profile, 1), ""},
		{"nothing to change", podmans, answers("", nil), podmans, ""},
		{"an error", podmans, answers("", errors.New("oops")), podmans, "oops"},
		{"a panic", podmans, func(context.Context, Draft) (json.RawMessage, error) { panic("boom") }, podmans, "boom"},
		{"no id", bare, answers(profile, nil), bare, "does not tell"},
		{"not JSON", "hello", answers(profile, nil), "hello", "understand"},
		{"too long", long, answers(profile, nil), long, "more than"},
		{"empty", "", answers(profile, nil), "", "understand"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, talk bytes.Buffer
			PrecreateHook(t.Context(), strings.NewReader(tt.config), &out, &talk, tt.prepare)
			if out.String() != tt.want {
				t.Errorf("it prints %.300s, want %.300s", &out, tt.want)
			}
			if !strings.Contains(talk.String(), tt.says) || (tt.says == "") != (talk.Len() == 0) {
				t.Errorf("it says %q, want %q", &talk, tt.says)
			}
		})
	}
}

func TestDraftIsDockers(t *testing.T) {
	root := t.TempDir()
	id, other := strings.Repeat("a", 64), strings.Repeat("b", 64)
	config := `{"process":{"args":["redis-server"]},"mounts":[{"destination":"/etc/hosts","source":"` + root + `/containers/` + other + `/hosts"}],"linux":{"seccomp":{}}}`
	file := `{"ID":"` + id + `","Name":"/web\u001b","Image":"sha256:` + other + `","Config":{"Image":"redis:7","StopSignal":"SIGQUIT","Labels":{"whittle.mode":"off"}}}`
	dir := filepath.Join(root, "containers", id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "config.v2.json")
	if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := MakeDraft([]byte(config), id)
	c := d.Container
	if err != nil || c.Engine != "docker" || c.Name != "web?" || c.Workload.Image != "redis:7" || c.Workload.Digest != "sha256:"+other ||
		c.StopSignal != 3 || !d.Off() {
		t.Errorf("MakeDraft = %+v, %v", d, err)
	}
	for _, bad := range []string{`{"ID":"` + other + `"}`, `{`, `{"ID":5}`} {
		if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := MakeDraft([]byte(config), id); err == nil {
			t.Errorf("with %s it is %+v", bad, d)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if d, err := MakeDraft([]byte(config), id); err != nil || d.Container.Engine != "oci" || d.Container.Workload.Image != "redis-server" {
		t.Errorf("without Docker's file it is %+v, %v", d, err)
	}
}

func TestPodmanGraph(t *testing.T) {
	for _, tt := range []struct{ root, want string }{
		{"/var/lib/containers/storage/overlay/abc/merged", "/var/lib/containers/storage/overlay-containers/ID/userdata"},
		{"/srv/u/s/vfs/dir/abc", "/srv/u/s/vfs-containers/ID/userdata"},
		{"/srv/rootfs", ""},
		{"overlay/abc/merged", ""},
		{"/overlay/abc/merged", ""},
		{"", ""},
	} {
		config := `{"process":{"args":["x"]},"root":{"path":"` + tt.root + `"},"annotations":{"io.container.manager":"libpod"}}`
		spec, err := parseSpec([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		if got := podmanGraph(spec, "ID"); got != tt.want {
			t.Errorf("podmanGraph(%s) = %s, want %s", tt.root, got, tt.want)
		}
	}
}

func TestWrapperConfig(t *testing.T) {
	dir := t.TempDir()
	fake := filepath.Join(dir, "fake")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"a runtime", `{"runtime":"` + fake + `","socket":"/s"}`, 0o644, fake},
		{"itself", `{"runtime":"` + self + `"}`, 0o644, ""},
		{"absent", `{"runtime":"/no/such"}`, 0o644, ""},
		{"an unknown key", `{"runtime":"` + fake + `","x":1}`, 0o644, ""},
		{"anybody's", `{"runtime":"` + fake + `"}`, 0o666, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(dir, "whittle-runc")
			if err := os.WriteFile(name+".json", []byte(tt.text), tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(name+".json", tt.mode); err != nil {
				t.Fatal(err)
			}
			c, err := ReadWrapperConfig(name)
			if (err == nil) != (tt.want != "") || err == nil && c.Runtime != tt.want {
				t.Errorf("ReadWrapperConfig = %+v, %v; want %q", c, err, tt.want)
			}
		})
	}
}

func TestNoteExec(t *testing.T) {
	once, err := NoteExec([]string{"A=b", loopVar + "=1"})
	if err != nil || len(once) != 2 || once[0] != "A=b" {
		t.Fatalf("NoteExec = %q, %v", once, err)
	}
	if again, err := NoteExec(once); err == nil {
		t.Errorf("a second time: %q", again)
	}
}

func TestWarn(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	now := time.Unix(0, 0).UTC()
	for _, tt := range []struct{ format, want string }{
		{"json", `{"level":"warning","msg":"whittle: oops \"x\"; the container starts without","time":"1970-01-01T00:00:00Z"}` + "\n"},
		{"text", `time="1970-01-01T00:00:00Z" level=warning msg="whittle: oops \"x\"; the container starts without"` + "\n"},
	} {
		var stderr bytes.Buffer
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		Call{Log: name, LogFormat: tt.format}.Warn(&stderr, now, errors.New(`oops "x"`))
		if got, err := os.ReadFile(name); err != nil || string(got) != tt.want || stderr.Len() > 0 {
			t.Errorf("the log has %s (%v), want %s; stderr %s", got, err, tt.want, &stderr)
		}
		Call{Log: "/no/such/dir/log"}.Warn(&stderr, now, errors.New("oops"))
		if !strings.Contains(stderr.String(), "oops") {
			t.Errorf("stderr has %q", &stderr)
		}
	}
}

func FuzzMakeDraft(f *testing.F) {
	f.Add([]byte(bare))
	f.Add([]byte(`{"process":{"args":["x"]},"annotations":{"io.container.manager":"libpod","whittle.mode":"off"},"root":{"path":"/a/b/overlay/c/merged"},"linux":{"cgroupsPath":"/libpod_parent/libpod-x"},"mounts":[{"source":"/a-containers/b/userdata/hosts","destination":"/etc/hosts"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := MakeDraft(data, "abc"); err != nil {
			return
		}
		out, err := WithProfile(data, json.RawMessage(profile))
		if err != nil {
			return
		}
		spec, err := parseSpec(out)
		if err != nil || spec.Linux.Seccomp.ListenerPath != "/run/l" {
			t.Errorf("WithProfile(%q) = %q (%v)", data, out, err)
		}
	})
}

func FuzzParseCall(f *testing.F) {
	f.Add("--root /r --log=/l create --bundle /b abc")
	f.Fuzz(func(t *testing.T, line string) { ParseCall(strings.Split(line, " ")) })
}
