// SPDX-License-Identifier: Apache-2.0

// Package bedtest gives a test a private Podman for its duration. It decides nothing about when to skip: call testenv first.
package bedtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed"
)

// Busybox is the name of the image that LoadBusybox loads. It has /bin/busybox and /bin/sh, and no entrypoint.
const Busybox = "localhost/busybox:test"

// Up starts a private Podman and removes it when the test ends.
func Up(t testing.TB, runtime string) *testbed.Env {
	t.Helper()
	// Not t.TempDir: it names the directory after the test, and a socket's path has 107 bytes at most.
	dir, err := os.MkdirTemp("", "bed")
	if err != nil {
		t.Fatal(err)
	}
	e, err := testbed.Up(t.Context(), dir, runtime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Down(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Load an image.
func Load(t testing.TB, e *testbed.Env, config image.Config, files []image.File) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := image.Write(f, config, files); err != nil {
		t.Fatal(err)
	}
	Podman(t, e, "load", "--quiet", "--input", name)
}

// LoadBusybox needs testenv.NeedTool(t, "busybox"), statically linked.
func LoadBusybox(t testing.TB, e *testbed.Env) {
	t.Helper()
	Load(t, e, image.Config{Name: Busybox}, BusyboxFiles(t))
}

// BusyboxFiles are a root file system with a shell.
func BusyboxFiles(t testing.TB) []image.File {
	t.Helper()
	for _, name := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		f, err := image.Host(name, "bin/busybox")
		if err != nil || f.Link != "" {
			continue
		}
		return []image.File{
			image.Dir("bin", 0o755), image.Dir("tmp", 0o777|fs.ModeSticky), image.Dir("proc", 0o555), image.Dir("sys", 0o555),
			image.Dir("dev", 0o755), image.Dir("etc", 0o755), f, image.Symlink("bin/sh", "busybox"),
			image.Data("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\n")),
		}
	}
	t.Fatal("no static busybox on this machine: apt-get install busybox-static")
	return nil
}

// Podman runs a command of podman and returns its output; it fails the test when podman fails.
func Podman(t testing.TB, e *testbed.Env, args ...string) string {
	t.Helper()
	out, err := e.Run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
