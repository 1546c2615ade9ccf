// SPDX-License-Identifier: Apache-2.0

package units_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/internal/units"
	"github.com/whittle-sec/whittle/testbed/load"
)

// Renewals of Podman's containers by their units, as podman generate systemd --new writes these, below a real systemd.

// web is the unit of a container that serves at an address, or from the sockets that it gets. It has no cgroup of its own:
// where both versions of cgroups are mounted, a Podman in a container says that it is in another one than it is in.
func web(name, address string) units.File {
	return units.File{Name: name + ".service", Text: `[Service]
Environment=PODMAN_SYSTEMD_UNIT=%n
Restart=on-failure
TimeoutStartSec=20
TimeoutStopSec=20
ExecStartPre=/bin/rm -f %t/%n.ctr-id
ExecStart=/t/podman run --cidfile=%t/%n.ctr-id --cgroups=disabled --rm --sdnotify=conmon --replace --detach --name=` + name +
		` --network=host --volume=/t:/t:ro --log-driver=none --stop-timeout=5 --security-opt seccomp=/etc/whittle/` + name + `.json localhost/web:1 /t/answers ` + address + `
ExecStop=/t/podman stop --ignore --time=5 --cidfile=%t/%n.ctr-id
ExecStopPost=/t/podman rm --force --ignore --time=5 --cidfile=%t/%n.ctr-id
Type=notify
NotifyAccess=all
`}
}

const (
	socketAddress = "127.0.0.1:8080" // systemd's
	plainAddress  = "127.0.0.1:8081" // the container's own
)

// profile under which getpriority says errno.
func profile(errno int, more string) string {
	return fmt.Sprintf(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpriority"],"action":"SCMP_ACT_ERRNO","errnoRet":%d}%s]}`, errno, more)
}

// bed is a host with both services.
type bed struct {
	units.Host
	t *testing.T
}

func upUnits(t *testing.T) *bed {
	t.Helper()
	testenv.NeedRuntime(t, "crun")
	testenv.NeedBPF(t)
	testenv.NeedTool(t, "go")
	b := &bed{t: t, Host: units.BootPodman(t,
		web("web", "socket"), units.File{Name: "web.socket", Text: "[Socket]\nListenStream=" + socketAddress + "\n"},
		web("plain", plainAddress),
		units.File{Name: "api.service", Text: "[Service]\nExecStart=/t/podman system service --time=0 unix:///run/p.sock\n"},
	)}
	for name, source := range map[string]string{"answers": "testdata/answers.go", "whittle": "../../cmd/whittle", "renewer": "../../e2e/testdata/renewer.go"} {
		cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(b.Dir(), name), source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v: %s", source, err, out)
		}
	}
	for name, text := range map[string]string{
		"1.json": profile(1001, ""), "2.json": profile(1002, ""),
		"bad.json":  profile(1003, `,{"names":["accept4"],"action":"SCMP_ACT_KILL_PROCESS"}`),
		"deaf.json": profile(1004, `,{"names":["accept4"],"action":"SCMP_ACT_ERRNO","errnoRet":11}`),
	} {
		if err := os.WriteFile(filepath.Join(b.Dir(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	units.WritePodman(b.Host)
	b.Run("sh", "-c", "mkdir -p /etc/whittle && cp /t/1.json /etc/whittle/web.json && cp /t/1.json /etc/whittle/plain.json")
	b.Run("systemctl", "start", "api", "web.socket", "plain", "web")
	t.Cleanup(func() { b.Stop("web.socket", "web", "plain", "api") }) // their control groups are this machine's
	return b
}

// clients of an address, with a connection for each request.
func (b *bed) clients(address string) *load.Running {
	return load.Start(b.t.Context(), load.Target{Addr: address, NetNS: b.NetNS()}, load.HTTP("/", "profile 100"), load.Load{Workers: 4, PerConnection: 1, Pause: 2 * time.Millisecond, Timeout: time.Minute})
}

// answered is what a service says.
func (b *bed) answered(address string) string {
	b.t.Helper()
	return b.Run("curl", "--silent", "--show-error", "--max-time", "10", "http://"+address+"/")
}

// renewed by the command; the exit status is not looked at, but the result is.
func (b *bed) renewed(name string, options ...string) (result renew.Result) {
	b.t.Helper()
	line := append([]string{"/t/whittle", "--state=/t/state", "--json", "renew", name, "--engine=podman", "--podman=/run/p.sock"}, options...)
	out, err := b.Try("sh", "-c", strings.Join(line, " ")+" 2>/t/talk || true")
	if err != nil || json.Unmarshal([]byte(out), &result) != nil {
		talk, _ := b.Try("cat", "/t/talk")
		b.t.Fatalf("renew %s: %v: %s%s", name, err, out, talk)
	}
	return result
}

// holds what has to be true after every renewal: the service has this profile, which is its unit's, and nothing is left.
func (b *bed) holds(name, address string, errno int) {
	b.t.Helper()
	if got, want := b.answered(address), fmt.Sprintf("profile %d by", errno); !strings.Contains(got, want) {
		b.t.Errorf("%s answers %q, want %q", name, got, want)
	}
	if got, want := b.Run("cat", "/etc/whittle/"+name+".json"), b.Run("cat", fmt.Sprintf("/t/%d.json", errno-1000)); got != want {
		b.t.Errorf("its profile is %s, want %s", got, want)
	}
	if left := b.Run("sh", "-c", "ls -A /etc/whittle; ls /t/state/renew | grep renewal || true"); strings.Join(strings.Fields(left), " ") != "plain.json web.json" {
		b.t.Errorf("left: %s", left)
	}
	b.Is(name, "active")
}

func describe(v any) string {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Under load nothing is refused and nothing fails, with systemd's socket and without, over several renewals, and when the
// successor does not get ready.
func TestRenewUnits(t *testing.T) {
	b := upUnits(t)
	for _, tt := range []struct {
		name, address string
		strategy      renew.Strategy
	}{{"web", socketAddress, renew.Socket}, {"plain", plainAddress, renew.Hold}} {
		t.Run(tt.name, func(t *testing.T) {
			b.t = t
			b.holds(tt.name, tt.address, 1001)
			clients := b.clients(tt.address)
			for i := range 4 { // an even number, so that the first profile is the last
				r := b.renewed(tt.name, fmt.Sprintf("--profile=/t/%d.json", 2-i%2))
				if r.Outcome != renew.Renewed || r.Strategy != tt.strategy || r.Serving == r.Predecessor || r.Serving != r.Successor {
					t.Fatalf("%s", describe(r))
				}
				b.holds(tt.name, tt.address, 1002-i%2)
			}
			for _, bad := range []string{"bad", "deaf"} {
				r := b.renewed(tt.name, "--profile=/t/"+bad+".json", "--patience=2s")
				if r.Outcome != renew.RolledBack || r.Why == "" || r.Serving == "" || r.Serving == r.Successor {
					t.Errorf("%s: %s", bad, describe(r))
				}
				t.Logf("%s: %s", bad, r.Why)
				b.holds(tt.name, tt.address, 1001)
			}
			stats := clients.Stop()
			if stats.Failed > 0 || stats.Requests < 50 {
				t.Errorf("clients: %v", stats)
			}
			t.Logf("clients: %v", stats)
		})
	}
}
