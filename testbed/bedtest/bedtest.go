// SPDX-License-Identifier: Apache-2.0

// Package bedtest gives a test a private Podman, Docker or containerd for its duration. It decides nothing about when to skip: call testenv first.
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
	e, err := testbed.Up(t.Context(), shortDir(t), runtime)
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

// UpDocker starts a private Docker with a busybox image and removes it when the test ends.
func UpDocker(t testing.TB, config map[string]any) *testbed.Docker {
	t.Helper()
	d, err := testbed.UpDocker(t.Context(), shortDir(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Down(); err != nil {
			t.Error(err)
		}
	})
	if _, err := d.Run(t.Context(), "load", "--quiet", "--input", Archive(t, image.Config{Name: Busybox}, BusyboxFiles(t))); err != nil {
		t.Fatal(err)
	}
	return d
}

// UpContainerd starts a private containerd with a busybox image and removes it when the test ends.
func UpContainerd(t testing.TB) *testbed.Containerd {
	t.Helper()
	c, err := testbed.UpContainerd(t.Context(), shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Ctr(t.Context(), "image", "import", Archive(t, image.Config{Name: Busybox}, BusyboxFiles(t))); err != nil {
		t.Fatal(err)
	}
	return c
}

// shortDir is removed with what is in it by those it is for. Not t.TempDir: a socket's path has 107 bytes at most.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bed")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Load an image.
func Load(t testing.TB, e *testbed.Env, config image.Config, files []image.File) {
	t.Helper()
	Podman(t, e, "load", "--quiet", "--input", Archive(t, config, files))
}

// Archive of an image, which every engine loads.
func Archive(t testing.TB, config image.Config, files []image.File) string {
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
	return name
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
