// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whittle-sec/whittle/internal/engine/enginetest"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/testenv"
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
	d := New(bed.Socket())
	defer d.Close()
	profile := filepath.Join(t.TempDir(), "profile.json")
	text := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`
	if err := os.WriteFile(profile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	enginetest.ConformMaker(t, enginetest.MakerBench{
		Engine: d, Run: bed.Run, Image: bedtest.Busybox, Full: full, Volume: "/volume", Profile: profile,
	})
}
