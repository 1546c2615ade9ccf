// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

const nginxImage = "localhost/nginx:e2e"

// loadNginx as it is installed, with a configuration of its own: a master and two workers, which change their user.
func loadNginx(t *testing.T, e *testbed.Env, port string) {
	t.Helper()
	testenv.NeedTool(t, "nginx")
	config := image.Config{Name: nginxImage}
	config.Entrypoint = []string{"/usr/sbin/nginx", "-c", "/etc/whittle.conf"}
	conf := fmt.Sprintf(`user www-data;
worker_processes 2;
daemon off;
pid /run/nginx.pid;
error_log stderr notice;
events { worker_connections 256; }
http {
	access_log off;
	server {
		listen 127.0.0.1:%s;
		root /srv;
	}
}
`, port)
	more := []image.File{
		image.Dir("srv", 0o755), image.Data("srv/index.html", 0o644, []byte(page)), image.Data("etc/whittle.conf", 0o644, []byte(conf)),
	}
	bedtest.Load(t, e, config, packageFiles(t, "^nginx", more, "nginx"))
}

var page = strings.Repeat("whittle\n", 1000)

// get the page over a connection of its own.
func get(ctx context.Context, port string) error {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != page) {
		err = fmt.Errorf("%s, %d bytes", resp.Status, len(body))
	}
	return err
}

func startNginx(t *testing.T, e *testbed.Env, port, name string, flags ...string) {
	t.Helper()
	bedtest.Podman(t, e, append(append([]string{"run", "--detach", "--network", "host", "--name", name}, flags...), nginxImage)...)
	eventually(t, "nginx answers", func() (bool, string) {
		err := get(t.Context(), port)
		log, _ := e.Command(t.Context(), "logs", name).CombinedOutput()
		return err == nil, fmt.Sprint(err, string(log))
	})
}

func nginxLoad(t *testing.T, port string) *load {
	t.Helper()
	return startLoad(t, 3, func(ctx context.Context, _ int) error {
		time.Sleep(2 * time.Millisecond) // two cores are to be left for others
		return get(ctx, port)
	})
}

// workersOf nginx, none of which root runs.
func workersOf(t *testing.T, master int) []int {
	t.Helper()
	var workers []int
	eventually(t, "two workers of www-data", func() (bool, string) {
		workers = nil
		for _, pid := range childrenOf(t, master) {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err == nil && !strings.Contains(commandOf(pid), "shutting down") && strings.Contains(string(status), "\nUid:\t33\t33\t33\t33\n") {
				workers = append(workers, pid)
			}
		}
		return len(workers) == 2, fmt.Sprint(workers)
	})
	return workers
}

// reloadNginx as its administrator does, and wait until new workers serve.
func reloadNginx(t *testing.T, e *testbed.Env, name string, master int) {
	t.Helper()
	before := workersOf(t, master)
	bedtest.Podman(t, e, "exec", name, "nginx", "-c", "/etc/whittle.conf", "-s", "reload")
	eventually(t, "new workers serve and the old ones are gone", func() (bool, string) {
		now := childrenOf(t, master)
		for _, pid := range before {
			if slices.Contains(now, pid) {
				return false, fmt.Sprint(before, now)
			}
		}
		return len(now) == 2, fmt.Sprint(before, now)
	})
	workersOf(t, master)
}

// TestSupervisedNginx: a master keeps what it needs for reloads, its workers lose it, and reloading goes on working.
func TestSupervisedNginx(t *testing.T) {
	t.Parallel()
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			e, d := supervisedBed(t, runtime)
			port := freePort(t)
			loadNginx(t, e, port)
			learnNginx(t, e, d, port)
			d.whittle("policy", "mode", "nginx", "enforce")
			startNginx(t, e, port, "held")
			l := nginxLoad(t, port)
			c := d.supervised("held", api.ModeEnforce, policy.Run)
			l.goOn(50)
			d.nothingRefused("while starting")
			for range 3 {
				reloadNginx(t, e, "held", c.PID)
				l.goOn(20)
			}
			bedtest.Podman(t, e, "kill", "--signal", "HUP", "held")
			l.goOn(50)
			d.supervised("held", api.ModeEnforce, policy.Run) // again, with no more news
			d.nothingRefused("while reloading")
			d.asIntended("held")
			for _, worker := range workersOf(t, c.PID) {
				refusedIn(t, worker, "execve", "clone", "bind", "listen", "setuid", "setgid", "setgroups", "unshare", "bpf", "ptrace")
			}
			refusedIn(t, c.PID, "execve", "setuid", "unshare", "bpf", "ptrace")
			l.goOn(50)
			reloadNginx(t, e, "held", c.PID)
			l.goOn(50)
			l.end()
			bedtest.Podman(t, e, "stop", "--time", "20", "held")
			exited(t, e, "held")
			d.forgotten()
		})
	}
}

// learnNginx in one run, with a reload of each kind.
func learnNginx(t *testing.T, e *testbed.Env, d *daemon, port string) {
	t.Helper()
	startNginx(t, e, port, "learner")
	l := nginxLoad(t, port)
	c := d.container("learner", "serves", func(c api.Container) bool { return c.Phase == policy.Run && c.ByPhase["run"] > 0 })
	l.goOn(50)
	reloadNginx(t, e, "learner", c.PID)
	l.goOn(20)
	bedtest.Podman(t, e, "kill", "--signal", "HUP", "learner")
	l.goOn(50)
	d.container("learner", "has reloaded", func(c api.Container) bool { return c.ByPhase["reload"] > 0 })
	l.end()
	bedtest.Podman(t, e, "stop", "--time", "20", "learner")
	bedtest.Podman(t, e, "rm", "learner")
	d.forgotten()
}
