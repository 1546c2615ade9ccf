// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// A profile is in use while any container was made with it, also one that never ran.
func TestProfiles(t *testing.T) {
	s := open(t)
	profile := filepath.Join(s.dir, "profile.json")
	id := s.podman("create", "--security-opt", "seccomp="+profile, bedtest.Busybox, "/bin/sh")
	s.podman("create", "--security-opt", "seccomp=unconfined", bedtest.Busybox, "/bin/sh")
	for _, want := range []bool{true, false} {
		paths, err := s.p.Profiles(t.Context())
		if err != nil || slices.Contains(paths, profile) != want || slices.Contains(paths, engine.SeccompUnconfined) {
			t.Errorf("Profiles = %q, %v; has %s: %t", paths, err, profile, want)
		}
		if want {
			s.podman("rm", id)
		}
	}
	away := serve(t, libpod("4.3.1", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	if paths, err := away.Profiles(t.Context()); err == nil {
		t.Errorf("Profiles of an engine that fails = %q", paths)
	}
	if paths, err := New(filepath.Join(s.dir, "none")).Profiles(t.Context()); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("Profiles of an engine that is away = %q, %v", paths, err)
	}
}
