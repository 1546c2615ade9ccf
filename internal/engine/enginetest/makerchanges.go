// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

func changes(t *testing.T, b MakerBench) {
	data := dataDir(t)
	first := b.run(t, "--network", "none", "-e", "KEEP=1", "-e", "SET=old", "--label", "keep=1", "--label", "set=old", "-v", data+":/data", b.Full, "sh", "-c", "echo $0; "+forever, "zero")
	show := []string{"sh", "-c", `exec 2>&1; echo "$KEEP $SET $NEW $IMAGE $*"; ls /data /new; echo x >/new/x; echo shown`, "zero", "one", "t w o"}
	second := b.like(t, first.ID, engine.Changes{
		Name:    "second",
		Command: show,
		Env:     map[string]string{"SET": "new", "NEW": "a b=\"c\""},
		Labels:  map[string]string{"set": "new", "added": "x=y z"},
		Mounts:  []engine.Mount{{Source: data, Destination: "/new", ReadOnly: true}},
	})
	want := map[string]string{"keep": "1", "set": "new", "added": "x=y z", "image": "yes"}
	for key, value := range want {
		if second.Labels[key] != value {
			t.Errorf("label %s is %q, want %q", key, second.Labels[key], value)
		}
	}
	if got := b.says(t, second.ID, "shown"); !strings.HasPrefix(got, squashed("1 new a b=\"c\" yes one t w o /data: file /new: file")) || !strings.Contains(got, "Read-only") {
		t.Errorf("it says %q", got)
	}
	entrypoint := []string{"/bin/busybox", "echo"}
	third := b.like(t, first.ID, engine.Changes{Name: "third", Entrypoint: &entrypoint, Command: []string{"done"}})
	if got := b.says(t, third.ID, "done"); got != "done" {
		t.Errorf("with another entrypoint it says %q", got)
	}
	fourth := b.like(t, first.ID, engine.Changes{Name: "fourth", Entrypoint: &entrypoint})
	if want := slices.Concat(entrypoint, first.Workload.Command[1:]); !slices.Equal(fourth.Workload.Command, want) {
		t.Errorf("with another entrypoint it runs %q, want %q", fourth.Workload.Command, want)
	}
	fifth := b.like(t, first.ID, engine.Changes{Name: "fifth", Mounts: []engine.Mount{{Source: filepath.Join(data, "file"), Destination: "/data"}}, Command: []string{"cat", "/data"}})
	if got := b.says(t, fifth.ID, "data"); got != "data" {
		t.Errorf("with another mount in the place of one it says %q", got)
	}
}

// changedRestart: an engine that would start a container by itself does not so with one that is made to be ended.
func changedRestart(t *testing.T, b MakerBench) {
	first := b.run(t, "--network", "none", "--restart", "always", b.Image, "/bin/sh", "-c", forever)
	second := b.like(t, first.ID, engine.Changes{Name: "second", NoRestart: true})
	for id, want := range map[string]string{first.ID: "always", second.ID: ""} {
		p, err := b.Engine.Blueprint(t.Context(), id)
		if err != nil || p.RestartPolicy != want && (want != "" || p.RestartPolicy != "no") {
			t.Errorf("restart policy %q, %v; want %q", p.RestartPolicy, err, want)
		}
	}
}

// changedImage: what the container said for itself stays, what came from its image comes from the other.
func changedImage(t *testing.T, b MakerBench) {
	first := b.run(t, "--network", "none", "-e", "OWN=1", "--label", "own=1", b.Full, "sh", "-c", forever)
	second := b.like(t, first.ID, engine.Changes{Name: "second", Image: b.Image, Command: []string{"/bin/sh", "-c", `echo "$OWN|$IMAGE|$(pwd)"; echo shown`}})
	if second.Workload.Image != b.Image || second.ImageID == first.ImageID || second.Labels["own"] != "1" || second.Labels["image"] != "" {
		t.Errorf("made %+v", second)
	}
	if got := b.says(t, second.ID, "shown"); got != "1||/shown" {
		t.Errorf("it says %q", got)
	}
	if id, err := b.Engine.Make(t.Context(), first.ID, engine.Changes{Name: "third", Image: "localhost/no-such-image:test"}); err == nil || hint.Of(err) == "" {
		t.Errorf("Make of an image that is not there = %s, %v (hint %q)", id, err, hint.Of(err))
	}
}

func changedProfile(t *testing.T, b MakerBench) {
	try := "mkdir /tmp/x 2>/dev/null && echo made || echo refused; echo tried; " + forever
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", try)
	if got := b.said(t, first.ID, "tried"); got != "madetried" {
		t.Fatalf("without the profile it says %q", got)
	}
	second := b.like(t, first.ID, engine.Changes{Name: "second", Seccomp: b.Profile})
	if got := b.says(t, second.ID, "tried"); got != "refusedtried" {
		t.Errorf("with the profile it says %q", got)
	}
	third := b.like(t, second.ID, engine.Changes{Name: "third"})
	if got := b.says(t, third.ID, "tried"); got != "refusedtried" {
		t.Errorf("its successor says %q", got)
	}
	fourth := b.like(t, third.ID, engine.Changes{Name: "fourth", Seccomp: engine.SeccompUnconfined})
	if got := b.says(t, fourth.ID, "tried"); got != "madetried" || fourth.Seccomp != engine.SeccompUnconfined {
		t.Errorf("unconfined (%s) it says %q", fourth.Seccomp, got)
	}
}

// generations: a successor is a predecessor, too.
func generations(t *testing.T, b MakerBench) {
	first := b.run(t, "--name", "service", "--network", "none", "-e", "A=1", "-v", "/kept", b.Full, "sh", "-c", facts+"; "+forever)
	want := b.said(t, first.ID, "facts")
	last := first
	for _, name := range []string{"second", "third", "fourth"} {
		last = b.like(t, last.ID, engine.Changes{Name: name, Labels: map[string]string{"generation": name}})
	}
	if got := b.says(t, last.ID, "facts"); got != want {
		t.Errorf("the last sees\n%s\nthe first saw\n%s", got, want)
	}
	if last.Labels["generation"] != "fourth" {
		t.Errorf("labels %v", last.Labels)
	}
}

func nameTaken(t *testing.T, b MakerBench) {
	first := b.run(t, "--name", "first", "--network", "none", b.Image, "/bin/sh", "-c", forever)
	second := b.like(t, "first", engine.Changes{Name: "second"})
	for _, name := range []string{"first", "second"} {
		if id, err := b.Engine.Make(t.Context(), first.ID, engine.Changes{Name: name}); !errors.Is(err, engine.ErrNameTaken) {
			t.Errorf("Make(%s) = %s, %v; want ErrNameTaken", name, id, err)
		}
	}
	if err := b.Engine.Rename(t.Context(), second.ID, "first"); !errors.Is(err, engine.ErrNameTaken) {
		t.Errorf("Rename = %v, want ErrNameTaken", err)
	}
	if id, err := b.Engine.Make(t.Context(), first.ID, engine.Changes{}); err == nil {
		t.Errorf("made %s without a name", id)
	}
}

func makesNone(t *testing.T, b MakerBench) {
	for _, like := range []string{"no-such-container", "", "..", "a/../b", "x\x1b[31m"} {
		if id, err := b.Engine.Make(t.Context(), like, engine.Changes{Name: "second"}); !errors.Is(err, engine.ErrUnknownContainer) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("Make(%q) = %s, %v; want ErrUnknownContainer", like, id, err)
		}
		if _, err := b.Engine.Blueprint(t.Context(), like); !errors.Is(err, engine.ErrUnknownContainer) {
			t.Errorf("Blueprint(%q) = %v; want ErrUnknownContainer", like, err)
		}
	}
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", forever)
	for _, name := range []string{"-x", "a/b", "a b", "x\x1b[31m", "--privileged"} {
		id, err := b.Engine.Make(t.Context(), first.ID, engine.Changes{Name: name})
		if err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("Make named %q = %s, %v", name, id, err)
		}
	}
	for _, image := range []string{"-x", "--privileged", "a b"} {
		if id, err := b.Engine.Make(t.Context(), first.ID, engine.Changes{Name: "second", Image: image}); err == nil {
			t.Errorf("Make of image %q = %s", image, id)
		}
	}
	if id, err := b.Engine.Make(t.Context(), first.ID, engine.Changes{Name: "second", Seccomp: "/no/such/profile"}); err == nil {
		// Podman reads it when the container starts.
		if b.cleanup(t, id); b.Engine.Start(t.Context(), id) == nil {
			t.Error("it runs without the profile that was asked for")
		}
	}
}
