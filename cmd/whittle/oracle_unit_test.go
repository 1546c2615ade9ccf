// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/internal/units"
	"github.com/whittle-sec/whittle/testbed"
)

// What the units run makes the container again that they were made like, and its oracle.
func TestUnitsMakeTheSameContainer(t *testing.T) {
	testenv.NeedPodman(t)
	e, err := testbed.Up(t.Context(), filepath.Join(t.TempDir(), "bed"), "")
	if err != nil {
		t.Fatal(err)
	}
	const name = "whittle-unit-test"
	t.Cleanup(func() {
		_, err := e.Run(context.Background(), "rm", "--force", "--ignore", "--time=0", name, name+units.Suffix)
		for _, n := range []string{name, name + units.Suffix} {
			if err := os.Remove("/run/" + n + ".service.ctr-id"); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
		if err := errors.Join(err, e.Down()); err != nil {
			t.Error(err)
		}
	})
	busybox, err := image.Host("/bin/busybox", "bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"localhost/web:1", "localhost/web:asan"} {
		loadImage(t, e, tag, []image.File{busybox, image.Symlink("bin/sleep", "busybox"), image.Data("which", 0o644, []byte(tag))})
	}
	data := t.TempDir()
	greeting := `GREETING=100% "$USER" $$`
	_, err = e.Run(t.Context(), "run", "-d", "--name", name, "--rm", "--network", "none", "-v", data+":/data:ro", "-e", greeting, "--label", "a=b",
		"--cap-drop=all", "--stop-timeout=1", "localhost/web:1", "/bin/sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	spec := oracle.Spec{Kind: oracle.Sanitizer, Image: "localhost/web:asan", Env: map[string]string{"TWIN": "1"}, Drain: time.Second}
	dir := filepath.Join(t.TempDir(), "needs")
	o := api.OracleState{Workload: "0123abcd", Spec: spec}
	both, needed, err := recipes(t.Context(), e.Socket(), name, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.WriteOracle(dir, needed); err != nil {
		t.Fatal(err)
	}
	if _, err := both.Units(); err != nil {
		t.Error(err)
	}
	if _, err := both.Quadlets(); err != nil {
		t.Error(err)
	}
	if !slices.Contains(both.Oracle.Flags, "--label="+agent.OracleLabel+"=0123abcd") {
		t.Errorf("the oracle is made with %q", both.Oracle.Flags)
	}
	for _, tt := range []struct {
		c           units.Container
		which, twin string
	}{
		{both.Production, "localhost/web:1", ""},
		{both.Oracle, "localhost/web:asan", "1"},
	} {
		s, err := tt.c.Service()
		if err != nil {
			t.Fatal(err)
		}
		// As systemd would, without it: the words themselves are the units' tests' business.
		if _, err := e.Run(t.Context(), s.Start[1:]...); err != nil {
			t.Fatal(err)
		}
		inside := func(command ...string) string {
			out, err := e.Run(t.Context(), append([]string{"exec", tt.c.Name, "/bin/busybox"}, command...)...)
			if err != nil {
				t.Error(err)
			}
			return out
		}
		if got := inside("cat", "/which"); got != tt.which {
			t.Errorf("%s is of %q, want %q", tt.c.Name, got, tt.which)
		}
		if got := inside("env"); !strings.Contains(got, greeting) || strings.Contains(got, "TWIN=1") != (tt.twin != "") {
			t.Errorf("the environment of %s:\n%s", tt.c.Name, got)
		}
		if got := inside("cat", "/proc/1/cmdline"); got != "/bin/sleep\x001000\x00" {
			t.Errorf("%s runs %q", tt.c.Name, got)
		}
		if got := inside("cat", "/proc/mounts"); !strings.Contains(got, " /data ") {
			t.Errorf("%s has no /data:\n%s", tt.c.Name, got)
		}
		if got := inside("grep", "CapBnd", "/proc/1/status"); !strings.Contains(got, "0000000000000000") {
			t.Errorf("%s has capabilities: %s", tt.c.Name, got)
		}
		for _, words := range append(s.Stop, s.After...) {
			if _, err := e.Run(t.Context(), words[1:]...); err != nil {
				t.Error(err)
			}
		}
		if left, err := e.Run(t.Context(), "ps", "--all", "--quiet", "--filter", "name=^"+tt.c.Name+"$"); err != nil || left != "" {
			t.Errorf("%s is still there: %q, %v", tt.c.Name, left, err)
		}
	}
	if _, _, err := recipes(t.Context(), e.Socket(), "nobody", dir, o); err == nil || hint.Of(err) == "" {
		t.Errorf("of no container: %v, want a hint", err)
	}
}

// loadImage of these files into a Podman.
func loadImage(t *testing.T, e *testbed.Env, name string, files []image.File) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	out, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(image.Write(out, image.Config{Name: name}, files), out.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Run(t.Context(), "load", "--input", archive); err != nil {
		t.Fatal(err)
	}
}

// Nobody's own unit is overwritten, and nothing is written when one of them is in the way.
func TestPutUnits(t *testing.T) {
	dir := t.TempDir()
	p := units.Pair{Name: "web", Production: units.Service{Start: []string{"/bin/web"}}, Oracle: units.Service{Start: []string{"/bin/asan"}}}
	files, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(dir, files[1].Name)
	if err := os.WriteFile(second, []byte("[Unit]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := putUnits(dir, files, false); err == nil || hint.Of(err) == "" {
		t.Errorf("over somebody's unit: %v, want an error with a hint", err)
	}
	if _, err := os.Stat(filepath.Join(dir, files[0].Name)); !os.IsNotExist(err) {
		t.Errorf("the first was written: %v", err)
	}
	for range 2 { // the second time over its own
		if err := putUnits(dir, files, true); err != nil {
			t.Fatal(err)
		}
		if err := putUnits(dir, files, false); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(second); err != nil || string(text) != files[1].Text {
		t.Errorf("%q, %v", text, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*new*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
