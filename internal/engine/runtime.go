// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxRuntime bounds what is hashed: runc has 10 MB, gVisor's runsc 60.
const maxRuntime = 512 << 20

// maxCached bounds the cache; a host has a handful of runtimes.
const maxCached = 64

// runtimeDirs are where Podman looks for a runtime known by name only.
var runtimeDirs = [...]string{
	"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/sbin", "/bin", "/usr/lib/cri-o-runc/sbin",
}

// ResolveRuntime makes a Runtime of what an engine says: a name, or the path of an executable. Path stays empty when there
// is no such file.
func ResolveRuntime(said string) Runtime {
	r := Runtime{Name: filepath.Base(said)}
	candidates := []string{said}
	if !filepath.IsAbs(said) {
		candidates = candidates[:0]
		if said != "" && !strings.Contains(said, "/") {
			for _, dir := range runtimeDirs {
				candidates = append(candidates, filepath.Join(dir, said))
			}
		}
	}
	for _, c := range candidates {
		real, err := filepath.EvalSymlinks(c)
		if err != nil {
			continue
		}
		if st, err := os.Stat(real); err == nil && st.Mode().IsRegular() {
			r.Path = real
			return r
		}
	}
	return r
}

// fileIdentity changes when a package manager replaces the file or anybody writes to it.
type fileIdentity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// Digests remembers the SHA-256 of executables. The zero value is ready; it may be shared by goroutines.
type Digests struct {
	mu    sync.Mutex
	known map[fileIdentity]string
}

// Of is the "sha256:…" of an executable's contents, read again only when the file was replaced or written to.
func (d *Digests) Of(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("hash runtime: %w", err)
	}
	defer f.Close()
	id, err := identify(f)
	if err != nil {
		return "", fmt.Errorf("hash runtime %s: %w", name, err)
	}
	d.mu.Lock()
	digest, ok := d.known[id]
	d.mu.Unlock()
	if ok {
		return digest, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxRuntime)); err != nil {
		return "", fmt.Errorf("hash runtime %s: %w", name, err)
	}
	digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	// A file that was written to meanwhile has a new identity: its digest is not remembered under the old one.
	if after, err := identify(f); err != nil || after != id {
		return "", fmt.Errorf("hash runtime %s: the file changed while it was read", name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) >= maxCached {
		d.known = make(map[fileIdentity]string)
	}
	d.known[id] = digest
	return digest, nil
}

func identify(f *os.File) (fileIdentity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileIdentity{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileIdentity{}, fmt.Errorf("not a regular file")
	}
	if st.Size > maxRuntime {
		return fileIdentity{}, fmt.Errorf("has %d bytes, more than any runtime", st.Size)
	}
	return fileIdentity{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}, nil
}
