// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// loadIntrudedRedis is the installed Redis, unmodified, with a module that makes calls for whoever asks.
func loadIntrudedRedis(t *testing.T, e *testbed.Env) {
	t.Helper()
	testenv.NeedTool(t, "redis-server", "redis-benchmark", "redis-cli")
	config := image.Config{Name: redisImage}
	config.Entrypoint = []string{"/usr/bin/redis-server", "--loadmodule", "/intruded.so", "--appendonly", "yes", "--dir", "/data"}
	more := []image.File{image.Dir("data", 0o755), program(t, compileShared(t, "intruded.c"), "intruded.so")}
	bedtest.Load(t, e, config, packageFiles(t, "^redis", more, "redis-server"))
}

// redisLoad sets and gets over connections that are kept; each worker looks for what it has set.
func redisLoad(t *testing.T, port string) *load {
	t.Helper()
	conns := make([]net.Conn, 4)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	})
	n := make([]int, len(conns))
	return startLoad(t, len(conns), func(ctx context.Context, worker int) (err error) {
		c := conns[worker]
		if c == nil {
			if c, err = net.Dial("tcp", "127.0.0.1:"+port); err != nil {
				return err
			}
			conns[worker] = c
		}
		n[worker]++
		key := fmt.Sprintf("load:%d", worker)
		reply := make([]byte, 256)
		if _, err := fmt.Fprintf(c, "SET %s %d\r\nINCR %[1]s\r\n", key, n[worker]); err != nil {
			return err
		}
		want := fmt.Sprintf("+OK\r\n:%d\r\n", n[worker]+1)
		for got := ""; got != want; {
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			k, err := c.Read(reply)
			if got += string(reply[:k]); err != nil || !strings.HasPrefix(want, got) {
				return fmt.Errorf("redis says %q, want %q (%w)", got, want, err)
			}
		}
		time.Sleep(time.Millisecond) // two cores are to be left for others
		return nil
	})
}

// intrude redis: what the kernel returned to the call, made by the thread that serves.
func intrude(t *testing.T, port, call string) string {
	t.Helper()
	out, err := exec.Command("redis-cli", "-p", port, "whittle.attack", call).CombinedOutput()
	if err != nil {
		t.Fatalf("whittle.attack %s: %v: %s", call, err, out)
	}
	return strings.TrimSpace(string(out))
}

// redisIsHeld: whoever has broken into the server gets nothing that is for booting or that it never does.
func redisIsHeld(t *testing.T, d *daemon, port string) {
	t.Helper()
	for _, call := range []string{"execve", "bind", "listen", "setuid", "unshare", "bpf", "ptrace", "mount"} {
		if got := intrude(t, port, call); got != fmt.Sprint(-int(unix.EPERM)) {
			t.Errorf("%s in redis returned %s, want %d", call, got, -int(unix.EPERM))
		}
	}
	eventually(t, "execve is in the journal", func() (bool, string) {
		for _, l := range d.heldLines("refused") {
			if l.Call == "execve" && l.Lane == "service" && l.Comm == "redis-server" && l.Errno == int32(unix.EPERM) {
				return true, ""
			}
		}
		return false, fmt.Sprint(d.heldLines("refused"))
	})
	if out := d.whittle("status", "held"); !strings.Contains(out, "execve") {
		t.Errorf("whittle status does not show the intruder's execve:\n%s", out)
	}
}

// TestSupervisedRedis starts unmodified, boots, and loses its boot-only calls while load runs, with no restart.
func TestSupervisedRedis(t *testing.T) {
	t.Parallel()
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			e, d := supervisedBed(t, runtime)
			loadIntrudedRedis(t, e)
			port := freePort(t)
			bedtest.Podman(t, e, "volume", "create", "data")
			learnRedis(t, e, d, port)
			d.whittle("policy", "mode", "redis", "enforce")
			startRedis(t, e, port, "held", "--volume", "data:/data")
			l := redisLoad(t, port)
			d.supervised("held", api.ModeEnforce, policy.Run)
			d.nothingRefused("while starting")
			l.goOn(200)
			redisIsHeld(t, d, port)
			l.goOn(200)
			useRedis(t, port)
			d.asIntended("held")
			l.goOn(200)
			l.end()
			redisKeeps(t, e, d, port)
		})
	}
}

// learnRedis in two runs, from its boot to its stop: it boots otherwise when it has data to load.
func learnRedis(t *testing.T, e *testbed.Env, d *daemon, port string) {
	t.Helper()
	for range 2 {
		learnRedisOnce(t, e, d, port)
	}
}

func learnRedisOnce(t *testing.T, e *testbed.Env, d *daemon, port string) {
	t.Helper()
	startRedis(t, e, port, "learner", "--volume", "data:/data")
	d.container("learner", "is learned from", func(c api.Container) bool { return c.Mode == api.Learning })
	l := redisLoad(t, port)
	useRedis(t, port)
	l.goOn(200)
	d.container("learner", "serves", func(c api.Container) bool { return c.Phase == policy.Run && c.ByPhase["run"] > 0 })
	l.end()
	bedtest.Podman(t, e, "stop", "--time", "20", "learner")
	bedtest.Podman(t, e, "rm", "learner")
	d.forgotten()
}

// redisKeeps what it was given, when it is stopped and started again, supervised.
func redisKeeps(t *testing.T, e *testbed.Env, d *daemon, port string) {
	t.Helper()
	cli := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("redis-cli", append([]string{"-p", port}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	cli("SET", "kept", "yes")
	before := len(d.heldLines("refused"))
	bedtest.Podman(t, e, "stop", "--time", "20", "held")
	exited(t, e, "held")
	if log := bedtest.Podman(t, e, "logs", "--tail", "5", "held"); !strings.Contains(log, "bye bye") {
		t.Errorf("redis did not stop as it should: %s", log)
	}
	d.forgotten()
	bedtest.Podman(t, e, "start", "held")
	eventually(t, "redis has loaded its data", func() (bool, string) {
		out, err := exec.Command("redis-cli", "-p", port, "GET", "kept").CombinedOutput()
		return err == nil && strings.TrimSpace(string(out)) == "yes", string(out)
	})
	d.supervised("held", api.ModeEnforce, policy.Run)
	bedtest.Podman(t, e, "stop", "--time", "20", "held")
	exited(t, e, "held")
	d.forgotten()
	for _, l := range d.heldLines("refused")[before:] {
		t.Errorf("while stopping and starting again: %+v", l)
	}
}
