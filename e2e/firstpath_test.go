// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

const redisImage = "localhost/redis:e2e"

// attacks of testdata/attack.c, in their order.
var attacks = []string{"unshare", "keyctl", "bpf", "userfaultfd", "io_uring_setup", "mount", "ptrace", "socket"}

// TestLearnAndEnforce is the product in one test: learn a real service in a real container, enforce what was learned.
func TestLearnAndEnforce(t *testing.T) {
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			testenv.NeedBPF(t)
			testenv.NeedPodman(t)
			testenv.NeedRuntime(t, runtime)
			testenv.NeedTool(t, "redis-server", "redis-benchmark", "redis-cli")
			learnAndEnforce(t, runtime)
		})
	}
}

func learnAndEnforce(t *testing.T, runtime string) {
	e := bedtest.Up(t, runtime)
	attack := program(t, compile(t, "attack.c"), "attack")
	config := image.Config{Name: redisImage}
	config.Entrypoint = []string{"/usr/bin/redis-server"}
	bedtest.Load(t, e, config, packageFiles(t, "^redis", []image.File{attack}, "redis-server"))
	d := startAgent(t, "--podman", e.Socket(), "--hooks-dir", e.HooksDir())
	port := freePort(t)

	startRedis(t, e, port, "learner")
	c := d.container("learner", "is learned from", func(c api.Container) bool { return c.Mode == api.Learning })
	if c.Late || c.Workload.Image != redisImage {
		t.Errorf("the hook registered %+v", c)
	}
	useRedis(t, port)
	c = d.container("learner", "serves", func(c api.Container) bool { return c.Phase == policy.Run && c.ByPhase["run"] > 0 })
	if c.BootEnd == 0 || c.ByPhase["boot"] == 0 || c.Settled.Bursts == 0 {
		t.Errorf("while it serves: %+v", c)
	}
	bedtest.Podman(t, e, "stop", "--time", "20", "learner")
	d.forgotten()
	learned := d.policy(c.WorkloadID)
	balanced(t, learned)
	for _, phase := range []policy.Phase{policy.Boot, policy.Run, policy.Stop} {
		if learned.ABIs[syscalls.X86_64].Phases[phase].Empty() {
			t.Errorf("nothing was learned for %s", phase)
		}
	}

	profile := filepath.Join(t.TempDir(), "redis.json")
	if err := os.WriteFile(profile, []byte(d.whittle("policy", "export", c.WorkloadID, "--format", "oci")), 0o600); err != nil {
		t.Fatal(err)
	}
	startRedis(t, e, port, "enforced", "--security-opt", "seccomp="+profile)
	d.container("enforced", "is enforced", func(c api.Container) bool { return c.Mode == api.Enforced })
	useRedis(t, port)
	if refused := d.container("enforced", "runs", func(api.Container) bool { return true }).Refused; len(refused) > 0 {
		t.Errorf("the load was refused %+v", refused)
	}
	refusesAttacks(t, e, d, learned)
	useRedis(t, port)
	bedtest.Podman(t, e, "stop", "--time", "20", "enforced")
	d.forgotten()
	for _, r := range refusals(t, d) {
		if r.Lane != "exec" {
			t.Errorf("the service was refused %+v", r)
		}
	}
	if after := d.policy(c.WorkloadID); !service(after, syscalls.X86_64).Minus(service(learned, syscalls.X86_64)).Empty() {
		t.Error("the enforced container widened its own policy")
	}
}

// refusesAttacks through podman exec: by the filter, as the agent can tell, and not for want of a capability.
func refusesAttacks(t *testing.T, e *testbed.Env, d *daemon, learned policy.Policy) {
	t.Helper()
	out := bedtest.Podman(t, e, "exec", "enforced", "/attack")
	lines := strings.Split(out, "\n")
	if len(lines) != len(attacks) {
		t.Fatalf("the attacker said %q", out)
	}
	found := map[string]api.Refusal{}
	eventually(t, "all attacks are in the journal", func() (bool, string) {
		for _, r := range refusals(t, d) {
			found[r.Call] = r
		}
		for _, name := range attacks {
			if _, ok := found[name]; !ok {
				return false, fmt.Sprintf("%s is missing in %+v", name, found)
			}
		}
		return true, ""
	})
	for i, name := range attacks {
		var said string
		var result int32
		if _, err := fmt.Sscan(lines[i], &said, &result); err != nil || said != name {
			t.Fatalf("the attacker said %q", lines[i])
		}
		r := found[name]
		nr, _ := syscalls.Number(syscalls.X86_64, name)
		want := policy.RefusalErrno(learned, syscalls.Call{ABI: syscalls.X86_64, Nr: nr})
		if service(learned, syscalls.X86_64).Has(nr) { // with other arguments, for which an OCI profile has the default only
			want = policy.ENOSYS
		}
		if result != -want || r.Errno != want {
			t.Errorf("%s returned %d and is journaled with %d, want %d", name, result, r.Errno, want)
		}
		if r.Comm != "attack" || r.Lane != "exec" || r.PID <= 0 || r.ABI != "x86_64" || r.Count != 1 {
			t.Errorf("%s is journaled as %+v", name, r)
		}
	}
}

func refusals(t *testing.T, d *daemon) (all []api.Refusal) {
	t.Helper()
	for _, e := range d.events() {
		if e.Kind != "refused" {
			continue
		}
		var r api.Refusal
		if err := json.Unmarshal(e.Data, &r); err != nil {
			t.Fatalf("the event %+v: %v", e, err)
		}
		all = append(all, r)
	}
	return all
}

// startRedis with its usual configuration, but for where it listens, and wait until it answers.
func startRedis(t *testing.T, e *testbed.Env, port, name string, flags ...string) {
	t.Helper()
	args := append([]string{"run", "--detach", "--network", "host", "--name", name, "--workdir", "/tmp"}, flags...)
	bedtest.Podman(t, e, append(args, redisImage, "--bind", "127.0.0.1", "--port", port)...)
	eventually(t, "redis answers", func() (bool, string) {
		out, err := exec.Command("redis-cli", "-p", port, "ping").CombinedOutput()
		if err == nil && strings.TrimSpace(string(out)) == "PONG" {
			return true, ""
		}
		log, _ := e.Command(t.Context(), "logs", name).CombinedOutput()
		return false, string(out) + string(log)
	})
}

// useRedis as a client does, and fail when it does anything else than it should.
func useRedis(t *testing.T, port string) {
	t.Helper()
	cli := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("redis-cli", append([]string{"-p", port}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	want := func(want string, args ...string) {
		t.Helper()
		if got := cli(args...); !strings.Contains(got, want) {
			t.Fatalf("redis-cli %q says %q, want %q", args, got, want)
		}
	}
	bench := exec.Command("redis-benchmark", "-p", port, "-q", "-n", "3000", "-c", "20", "-t", "ping,set,get,incr,lpush,lpop,sadd,mset")
	if out, err := bench.CombinedOutput(); err != nil || strings.Contains(string(out), "rror") {
		t.Fatalf("redis-benchmark: %v: %s", err, out)
	}
	want("PONG", "PING")
	want("redis_version", "INFO")
	want("OK", "SET", "k", "v")
	want("v", "GET", "k")
	saved := cli("LASTSAVE")
	want("Background saving started", "BGSAVE")
	eventually(t, "the background save is done", func() (bool, string) {
		info := cli("INFO", "persistence")
		if strings.Contains(info, "rdb_bgsave_in_progress:0") && !strings.Contains(info, "rdb_last_bgsave_status:ok") {
			t.Fatalf("after BGSAVE: %s", info)
		}
		return strings.Contains(info, "rdb_bgsave_in_progress:0") && strings.Contains(info, "rdb_last_bgsave_status:ok"), saved + info
	})
}
