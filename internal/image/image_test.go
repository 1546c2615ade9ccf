// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func untar(t *testing.T, archive []byte) (map[string][]byte, map[string]*tar.Header) {
	t.Helper()
	contents, headers := make(map[string][]byte), make(map[string]*tar.Header)
	in := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return contents, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		contents[h.Name], headers[h.Name] = data, h
	}
}

func sample(t *testing.T) (Config, []File) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(name, []byte("#!binary"), 0o700); err != nil {
		t.Fatal(err)
	}
	tool, err := Host(name, "/bin/tool")
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Name: "localhost/sample:1"}
	config.Entrypoint = []string{"/bin/tool"}
	return config, []File{Symlink("sbin", "bin"), tool, Dir("/bin", 0o755), Dir("/tmp", 0o777|fs.ModeSticky), Data("etc/x", 0o600, []byte("y"))}
}

func TestWrite(t *testing.T) {
	config, files := sample(t)
	var archive bytes.Buffer
	if err := Write(&archive, config, files); err != nil {
		t.Fatal(err)
	}
	contents, _ := untar(t, archive.Bytes())
	var index v1.Index
	var manifest v1.Manifest
	for name, v := range map[string]any{"index.json": &index} {
		if err := json.Unmarshal(contents[name], v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := json.Unmarshal(contents[blobName(index.Manifests[0].Digest)], &manifest); err != nil {
		t.Fatal(err)
	}
	layer, headers := untar(t, contents[blobName(manifest.Layers[0].Digest)])
	if got := string(layer["bin/tool"]); got != "#!binary" {
		t.Errorf("bin/tool holds %q", got)
	}
	tests := []struct {
		name string
		kind byte
		mode int64
		link string
	}{
		{"bin/", tar.TypeDir, 0o755, ""},
		{"bin/tool", tar.TypeReg, 0o700, ""},
		{"etc/x", tar.TypeReg, 0o600, ""},
		{"sbin", tar.TypeSymlink, 0o777, "bin"},
		{"tmp/", tar.TypeDir, 0o1777, ""},
	}
	if len(headers) != len(tests) {
		t.Errorf("%d files in the layer, want %d", len(headers), len(tests))
	}
	for _, tt := range tests {
		h := headers[tt.name]
		if h == nil || h.Typeflag != tt.kind || h.Mode != tt.mode || h.Linkname != tt.link || !h.ModTime.Equal(epoch) {
			t.Errorf("%s: got %+v, want %+v", tt.name, h, tt)
		}
	}
}

// The same files in another order, with other times, give the same bytes.
func TestReproducible(t *testing.T) {
	config, files := sample(t)
	var first, second bytes.Buffer
	if err := Write(&first, config, files); err != nil {
		t.Fatal(err)
	}
	files[0], files[1] = files[1], files[0]
	for _, f := range files {
		if f.Source != "" {
			if err := os.Chtimes(f.Source, time.Unix(1, 0), time.Unix(2, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Write(&second, config, files); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same files differ")
	}
}

func TestRefused(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Host(fifo, "fifo"); err == nil {
		t.Error("a FIFO was taken into an image")
	}
	tests := []struct {
		name   string
		config Config
		files  []File
	}{
		{"no tag", Config{Name: "x"}, nil},
		{"twice", Config{Name: "x:1"}, []File{Dir("a", 0), Data("a", 0, nil)}},
		{"outside", Config{Name: "x:1"}, []File{{Path: "../a"}}},
		{"absolute", Config{Name: "x:1"}, []File{{Path: "/a"}}},
		{"the root", Config{Name: "x:1"}, []File{Dir("/", 0)}},
		{"source is gone", Config{Name: "x:1"}, []File{{Path: "a", Source: filepath.Join(fifo, "no")}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := Write(io.Discard, tt.config, tt.files); err == nil || !strings.HasPrefix(err.Error(), "write image") {
				t.Errorf("Write = %v", err)
			}
		})
	}
}
