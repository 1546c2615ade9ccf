// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/engine/process"
)

func TestReadState(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"runc", `{"ociVersion":"1.0.2","id":"a1","status":"creating","pid":7,"bundle":"/b","annotations":{"k":"v"}}`, true},
		{"crun", `{"ociVersion":"1.0","id":"a1","pid":7,"root":"/r","bundle":"/b","status":"created"}`, true},
		{"stopped", `{"id":"a1","status":"stopped","pid":0,"bundle":"/b"}`, true},
		{"empty", ``, false},
		{"null", `null`, false},
		{"not JSON", `hello`, false},
		{"no pid", `{"id":"a1","status":"creating","bundle":"/b"}`, false},
		{"negative pid", `{"id":"a1","status":"creating","pid":-1,"bundle":"/b"}`, false},
		{"no status", `{"id":"a1","pid":7,"bundle":"/b"}`, false},
		{"path as id", `{"id":"../x","status":"creating","pid":7,"bundle":"/b"}`, false},
		{"dots as id", `{"id":"..","status":"creating","pid":7,"bundle":"/b"}`, false},
		{"no id", `{"status":"creating","pid":7,"bundle":"/b"}`, false},
		{"relative bundle", `{"id":"a1","status":"creating","pid":7,"bundle":"b"}`, false},
		{"bundle with dots", `{"id":"a1","status":"creating","pid":7,"bundle":"/b/../c"}`, false},
		{"too long", `{"id":"` + strings.Repeat("a", maxState) + `"}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ReadState(strings.NewReader(tt.text))
			if (err == nil) != tt.ok {
				t.Errorf("ReadState(%.80s) = %+v, %v", tt.text, s, err)
			}
		})
	}
}

// What a bundle must not be read through or from.
func TestOpenUnder(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "config.json")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(secret, []byte("{}"), 0o600))
	must(os.Symlink(secret, filepath.Join(dir, "link")))
	must(os.Symlink("good", filepath.Join(dir, "inside")))
	must(os.WriteFile(filepath.Join(dir, "good"), []byte("{}"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "long"), []byte("more than four"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "open"), []byte("{}"), 0o600))
	must(os.Chmod(filepath.Join(dir, "open"), 0o666))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)) // opening it would block
	must(os.Mkdir(filepath.Join(dir, "dir"), 0o700))
	for name, want := range map[string]bool{
		"good": true, "link": false, "inside": false, "long": false, "open": false, "fifo": false, "dir": false, "absent": false,
		"../" + filepath.Base(dir) + "/good": false,
	} {
		if data, err := readUnder(dir, name, 4); (err == nil) != want {
			t.Errorf("readUnder(%s) = %q, %v; want success %v", name, data, err, want)
		}
	}
}

func TestGraphDir(t *testing.T) {
	for _, tt := range []struct {
		bundle string
		want   graph
	}{
		{"/var/lib/containers/storage/overlay-containers/abc/userdata", graph{"/var/lib/containers/storage", "overlay"}},
		{"/s/vfs-containers/abc/userdata", graph{"/s", "vfs"}},
		{"/s/vfs-containers/abd/userdata", graph{}},
		{"/s/-containers/abc/userdata", graph{}},
		{"/s/overlay-containers/abc", graph{}},
		{"/run/containerd/abc", graph{}},
		{"/", graph{}},
	} {
		if got, err := graphDir(tt.bundle, "abc"); got != tt.want || (err == nil) != (tt.want != graph{}) {
			t.Errorf("graphDir(%s) = %+v, %v; want %+v", tt.bundle, got, err, tt.want)
		}
	}
}

func TestDescribeGone(t *testing.T) {
	var s State
	s.ID, s.Pid, s.Bundle = "abc", 1<<30, t.TempDir()
	if _, _, err := Describe(s); !errors.Is(err, process.ErrGone) {
		t.Errorf("Describe = %v, want ErrGone", err)
	}
	s.Pid = os.Getpid()
	if c, _, err := Describe(s); err == nil {
		t.Errorf("Describe without config.json = %+v", c)
	}
}

// A bundle of no engine: its program names the workload.
func TestDescribeBareBundle(t *testing.T) {
	dir := t.TempDir()
	config := `{"ociVersion":"1.0.2","process":{"args":["/bin/x","-y"],"noNewPrivileges":true},"annotations":{"org.opencontainers.image.stopSignal":"SIGQUIT"},"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var s State
	s.ID, s.Pid, s.Bundle = "abc", os.Getpid(), dir
	c, spec, err := Describe(s)
	if err != nil {
		t.Fatal(err)
	}
	if c.Workload.Image != "x" || !c.NoNewPrivileges || c.StopSignal != 3 || c.Seccomp != "default" || c.PID != os.Getpid() || c.MountNS == 0 {
		t.Errorf("got %+v", c)
	}
	if spec.Linux.Seccomp.DefaultAction != "SCMP_ACT_ERRNO" {
		t.Errorf("spec %+v", spec.Linux.Seccomp)
	}
}

// Whatever happens, the hook returns, and says on stderr what happened.
func TestHookReturns(t *testing.T) {
	never := func(context.Context, Notice) error { return nil }
	stopped := `{"id":"abc","status":"stopped","bundle":"/b","annotations":{"io.container.manager":"libpod"}}`
	blocked, unblock := io.Pipe()
	defer unblock.Close()
	for _, tt := range []struct {
		name, stage string
		stdin       io.Reader
		notify      func(context.Context, Notice) error
		says        string
	}{
		{"told", Poststop, strings.NewReader(stopped), func(_ context.Context, n Notice) error {
			if n.Container.ID != "abc" || n.Container.Engine != "podman" || n.Stage != Poststop {
				return fmt.Errorf("notice %+v", n)
			}
			return nil
		}, ""},
		{"no agent", Poststop, strings.NewReader(stopped), func(context.Context, Notice) error { return errors.New("no agent") }, "no agent"},
		{"nonsense", CreateRuntime, strings.NewReader("{"), never, "state"},
		{"stage", "prestart", strings.NewReader(stopped), never, "prestart"},
		{"panic", Poststop, strings.NewReader(stopped), func(context.Context, Notice) error { panic("oops") }, "oops"},
		{"agent hangs", Poststop, strings.NewReader(stopped), func(ctx context.Context, _ Notice) error {
			<-ctx.Done()
			return ctx.Err()
		}, "deadline"},
		{"runtime hangs", CreateRuntime, blocked, never, "deadline"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if tt.says != "deadline" {
				cancel()
				ctx, cancel = context.WithCancel(t.Context())
			}
			defer cancel()
			var stderr bytes.Buffer
			Hook(ctx, tt.stage, tt.stdin, &stderr, tt.notify)
			if !strings.Contains(stderr.String(), tt.says) || (tt.says == "") != (stderr.Len() == 0) {
				t.Errorf("it says %q, want %q", &stderr, tt.says)
			}
		})
	}
}

func TestHookConfig(t *testing.T) {
	files := HookConfig("/usr/bin/whittle", "/run/w \"x\".sock")
	if len(files) != 3 {
		t.Fatalf("%d files", len(files))
	}
	for name, text := range files {
		var c hookConfig
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.Version != "1.0.0" || !c.When.Always || c.Hook.Path != "/usr/bin/whittle" || len(c.Stages) != 1 ||
			c.Hook.Args[2] != c.Stages[0] || c.Hook.Args[4] != "/run/w \"x\".sock" || time.Duration(c.Hook.Timeout)*time.Second <= HookTime {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"id":"a1","status":"creating","pid":7,"bundle":"/b","annotations":{"k":"v"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err == nil && (!validID(s.ID) || !filepath.IsAbs(s.Bundle)) {
			t.Errorf("parseState(%q) = %+v", data, s)
		}
	})
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(`{"process":{"args":["sh"]},"annotations":{"io.container.manager":"libpod"},"linux":{"seccomp":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := parseSpec(data)
		if err != nil {
			return
		}
		c := fromSpec(State{}, spec)
		if strings.ContainsFunc(c.Name+c.Workload.Image+c.Seccomp, func(r rune) bool { return r < ' ' }) {
			t.Errorf("not printable: %+v", c)
		}
	})
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(`[{"id":"a","names":["n"],"image":"i","metadata":"{\"image-name\":\"x\"}"}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := scan(bytes.NewReader(data), func(s stored) bool { return s.ID == "a" })
		if err == nil && found.ID != "a" {
			t.Errorf("scan(%q) = %+v", data, found)
		}
		found.imageName()
	})
}
