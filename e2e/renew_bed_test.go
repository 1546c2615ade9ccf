// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/podman"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
	askers "github.com/whittle-sec/whittle/testbed/load"
)

// renewedImage has testdata/renewed.go as its service.
const renewedImage = "localhost/renewed:test"

// buildRenewed service, once.
var buildRenewed = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "renewed")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", bin, "testdata/renewed.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the service: %w: %s", err, out)
	}
	return bin, err
})

// renewBed is a private Podman with a service that can be renewed.
type renewBed struct {
	env    *testbed.Env
	engine *podman.Podman
	dir    string // of the journals
	data   string // a volume; "" none
	addr   string
	id     string // of the first container, web
	ends   []func()
}

// bedWithImage is one without a container.
func bedWithImage(t *testing.T) *renewBed {
	t.Helper()
	testenv.NeedPodman(t)
	testenv.NeedBPF(t)
	testenv.NeedTool(t, "go")
	bin, err := buildRenewed()
	if err != nil {
		t.Fatal(err)
	}
	b := &renewBed{env: bedtest.Up(t, "runc"), dir: filepath.Join(t.TempDir(), "renew")}
	config := image.Config{Name: renewedImage}
	config.Entrypoint = []string{"/service"}
	bedtest.Load(t, b.env, config, []image.File{
		image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("dev", 0o755), image.Dir("etc", 0o755), program(t, bin, "service"),
	})
	b.engine = podman.New(b.env.Socket())
	t.Cleanup(b.engine.Close)
	return b
}

// upRenew starts the service, in the host's network. With data it has a volume that it writes to.
func upRenew(t *testing.T, data bool) *renewBed {
	t.Helper()
	b := bedWithImage(t)
	if data {
		b.data = t.TempDir()
	}
	b.begin(t)
	return b
}

// begin the service anew, in a container that nothing has been done to, on a port that nothing has.
func (b *renewBed) begin(t *testing.T) {
	t.Helper()
	b.addr = "127.0.0.1:" + freePort(t)
	args := []string{"run", "--detach", "--network", "host", "--name", "web", "--env", "WHO=first"}
	if b.data != "" {
		args = append(args, "--volume", b.data+":/data")
	}
	b.id = bedtest.Podman(t, b.env, append(args, renewedImage, b.addr)...)
	eventually(t, "the service answers", func() (bool, string) {
		body, err := b.get("/")
		return err == nil, fmt.Sprint(body, err)
	})
}

// clear away all containers.
func (b *renewBed) clear(t *testing.T) {
	t.Helper()
	bedtest.Podman(t, b.env, "rm", "--all", "--force", "--time", "0")
}

func (b *renewBed) get(path string) (string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + b.addr + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// late is the patience with a successor that does not get ready. Within that it has to listen, and the predecessor again.
const late = 5 * time.Second

func (b *renewBed) runner() *renew.Runner { return &renew.Runner{Engine: b.engine, Dir: b.dir} }

// request of a successor that says who it is, and behaves as mode says.
func (b *renewBed) request(mode string, s renew.Strategy) renew.Request {
	return renew.Request{
		Container: "web", Strategy: s,
		Changes: engine.Changes{Env: map[string]string{"WHO": "second", "MODE": mode}},
	}
}

// clients with a new connection for each request; the answer has to be the service's.
func (b *renewBed) clients(t *testing.T) *askers.Running {
	return askers.Start(t.Context(), askers.Target{Addr: b.addr}, askers.HTTP("/", "served by"), askers.Load{Workers: 4, PerConnection: 1, Timeout: patience})
}

// holds what has to be true after every renewal: one container, called web, serves as who; nothing is left of the renewal.
func (b *renewBed) holds(t *testing.T, who string) {
	t.Helper()
	body, err := b.get("/")
	if err != nil || !strings.Contains(body, fmt.Sprintf("%q", who)) {
		t.Errorf("answered %q, %v; want %s to serve", body, err, who)
	}
	if names := bedtest.Podman(t, b.env, "ps", "--all", "--format", "{{.Names}}"); names != "web" {
		t.Errorf("containers:\n%s\nwant web and no other", names)
	}
	if left, err := filepath.Glob(filepath.Join(b.dir, "*.renewal")); err != nil || len(left) > 0 {
		t.Errorf("journals are left: %v, %v", left, err)
	}
	if b.data != "" {
		if _, err := os.Stat(filepath.Join(b.data, "violations")); err == nil {
			t.Error("two wrote to one volume")
		}
	}
}

func describe(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func renewed(t *testing.T, r *renew.Runner, q renew.Request) renew.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := r.Run(ctx, q)
	if err != nil {
		t.Fatalf("renew: %v\n%s", err, describe(result))
	}
	return result
}
