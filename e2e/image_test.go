// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed"
)

// packageFiles of an image: installed packages and what is given beside them.
func packageFiles(t *testing.T, follow string, more []image.File, packages ...string) []image.File {
	t.Helper()
	d := testbed.Debian{Packages: packages}
	if follow != "" {
		d.Follow = regexp.MustCompile(follow)
	}
	files, err := d.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return append(files, more...)
}

func program(t *testing.T, source, name string) image.File {
	t.Helper()
	f, err := image.Host(source, name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// unpack an image's files into a directory: the root file system of a bundle.
func unpack(t *testing.T, dir string, files []image.File) {
	t.Helper()
	for _, f := range files {
		name := filepath.Join(dir, f.Path)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		switch {
		case err != nil:
		case f.Mode.IsDir():
			err = os.MkdirAll(name, f.Mode.Perm())
			if err == nil {
				err = os.Chmod(name, f.Mode&(fs.ModePerm|fs.ModeSticky))
			}
		case f.Link != "":
			err = os.Symlink(f.Link, name)
		case f.Source != "":
			var data []byte
			if data, err = os.ReadFile(f.Source); err == nil {
				err = os.WriteFile(name, data, f.Mode.Perm())
			}
		default:
			err = os.WriteFile(name, f.Data, f.Mode.Perm())
		}
		if err == nil && f.Link == "" && (f.UID != 0 || f.GID != 0) {
			err = os.Chown(name, f.UID, f.GID)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
