// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/enginetest"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

const full = "localhost/full:test"

func TestMaker(t *testing.T) {
	testenv.NeedDocker(t)
	testenv.NeedTool(t, "busybox")
	bed := bedtest.UpDocker(t, nil)
	archive := bedtest.Archive(t, image.Config{Name: full, ImageConfig: v1.ImageConfig{
		Entrypoint: []string{"/bin/busybox"}, Cmd: []string{"sh", "-c", "sleep 1000"}, Env: []string{"PATH=/bin", "IMAGE=yes"},
		Labels: map[string]string{"image": "yes"}, WorkingDir: "/tmp", Volumes: map[string]struct{}{"/volume": {}}, StopSignal: "SIGINT",
	}}, append(bedtest.BusyboxFiles(t), image.Dir("volume", 0o755)))
	if _, err := bed.Run(t.Context(), "load", "--quiet", "--input", archive); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"whittle-one", "whittle-two"} {
		if _, err := bed.Run(t.Context(), "network", "create", name); err != nil {
			t.Fatal(err)
		}
	}
	d := New(bed.Socket())
	defer d.Close()
	profile := filepath.Join(t.TempDir(), "profile.json")
	text := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`
	if err := os.WriteFile(profile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	enginetest.ConformMaker(t, enginetest.MakerBench{
		Engine: d, Run: bed.Run, Image: bedtest.Busybox, Full: full, Volume: "/volume", Profile: profile, Network: "whittle-one",
	})
	t.Run("two networks", func(t *testing.T) { twoNetworks(t, bed, d) })
}

// twoNetworks: the aliases that somebody chose are kept, and the address, and the network that was joined later.
func twoNetworks(t *testing.T, bed *testbed.Docker, d *Docker) {
	for _, args := range [][]string{
		{"network", "create", "--subnet", "10.99.0.0/24", "whittle-three"},
		{"run", "--detach", "--name=first", "--network=whittle-three", "--ip=10.99.0.7", "--network-alias=web", bedtest.Busybox, "/bin/sh", "-c", "sleep 1000"},
		{"network", "connect", "--alias=also", "whittle-two", "first"},
	} {
		if _, err := bed.Run(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	second, err := d.Make(t.Context(), "first", engine.Changes{Name: "second"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Stop(t.Context(), "first", 0), d.Start(t.Context(), second)); err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		`{{range .NetworkSettings.Networks}}{{range .Aliases}}{{.}} {{end}}{{end}}`: "also first first web ",
		`{{(index .NetworkSettings.Networks "whittle-three").IPAddress}}`:           "10.99.0.7",
		`{{len .NetworkSettings.Networks}}`:                                         "2",
	} {
		got, err := bed.Run(t.Context(), "inspect", "--format", format, second)
		words := slices.DeleteFunc(strings.Fields(got), func(s string) bool { return len(s) >= 12 && strings.HasPrefix(second, s) })
		slices.Sort(words)
		if err != nil || strings.Join(words, " ") != strings.TrimSpace(want) {
			t.Errorf("%s is %q (%v), want %q", format, got, err, want)
		}
	}
}
