// SPDX-License-Identifier: Apache-2.0

// Package workload identifies what is learned: a container is one running instance, a workload is what it is an instance
// of. It does not talk to engines.
package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
)

// Workload is an image and the command line that runs in it. Replicas and restarts add to the same one.
type Workload struct {
	// Image is the name that people use, for instance "docker.io/library/redis:7", or the path of the executable
	// for a command that runs without an engine. It is shown, never compared.
	Image string `json:"image"`
	// Digest of the image ("sha256:…"), or of the executable. Empty when the engine did not tell: the workload is
	// then known by Image.
	Digest string `json:"digest,omitempty"`
	// Command is the full argument vector of the entrypoint.
	Command []string `json:"command"`
}

// ID is the key of a workload: 12 hex digits of the SHA-256 of its digest (or image name) and command.
func (w Workload) ID() string {
	h := sha256.New()
	identity := w.Digest
	if identity == "" {
		identity = w.Image
	}
	// Through runes: bytes that are not UTF-8 become what JSON makes of them, so that a stored workload keeps its ID.
	h.Write([]byte(string([]rune(identity))))
	for _, arg := range w.Command {
		h.Write([]byte{0})
		h.Write([]byte(string([]rune(arg))))
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Name is what a person types and reads: the image's base name without its registry, then "-" and four digits of the ID.
func (w Workload) Name() string {
	base := path.Base(w.Image)
	base, _, _ = strings.Cut(base, "@")
	base, _, _ = strings.Cut(base, ":")
	return Printable(base, 40) + "-" + w.ID()[:4]
}

// Container is one running instance as the engine and the kernel know it.
type Container struct {
	Engine string `json:"engine"` // "podman", "docker", "run" …
	ID     string `json:"id"`
	Name   string `json:"name"`
	PID    int    `json:"pid"` // of its init, in the host's pid namespace
	// CgroupID is the inode of its cgroup v2 directory; 0 or 1 when it has none of its own (rootless), then MountNS
	// is the key.
	CgroupID uint64   `json:"cgroup_id,omitempty"`
	MountNS  uint64   `json:"mount_ns,omitempty"`
	Workload Workload `json:"workload"`
}

// Printable makes a name that came from a container safe to show: everything but printable ASCII is replaced by "?", and of
// more than limit runes the last ones become "...". What is printable within the limit stays as it is.
func Printable(s string, limit int) string {
	const cut = "..."
	var b strings.Builder
	n, keep := 0, 0 // runes so far, and the bytes of those that stay when it is cut
	for _, r := range s {
		if n == limit {
			if limit < len(cut) {
				return b.String()
			}
			return b.String()[:keep] + cut
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		b.WriteRune(r)
		if n++; n <= limit-len(cut) {
			keep = b.Len()
		}
	}
	return b.String()
}
