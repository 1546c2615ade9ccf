// SPDX-License-Identifier: Apache-2.0

package podman

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
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "busybox")
	e := bedtest.Up(t, "")
	bedtest.LoadBusybox(t, e)
	bedtest.Load(t, e, image.Config{Name: full, ImageConfig: v1.ImageConfig{
		Entrypoint: []string{"/bin/busybox"}, Cmd: []string{"sh", "-c", "sleep 1000"}, Env: []string{"PATH=/bin", "IMAGE=yes"},
		Labels: map[string]string{"image": "yes"}, WorkingDir: "/tmp", Volumes: map[string]struct{}{"/volume": {}}, StopSignal: "SIGINT",
	}}, append(bedtest.BusyboxFiles(t), image.Dir("volume", 0o755)))
	p := New(e.Socket())
	defer p.Close()
	enginetest.ConformMaker(t, enginetest.MakerBench{
		Engine: p, Run: e.Run, Image: bedtest.Busybox, Full: full, Volume: "/volume", Profile: profile(t), Privileged: true,
	})
}

// profile refuses mkdir.
func profile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "profile.json")
	text := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
