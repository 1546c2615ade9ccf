// SPDX-License-Identifier: Apache-2.0

package services_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/services"
)

// childVariable makes this test binary start a container and wait to be killed.
const childVariable = "WHITTLE_SERVICES_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		i, err := services.Start(context.Background(), redis(), services.Options{})
		if err == nil {
			fmt.Println("started", i.PID, i.Dir)
		}
		select {}
	}
	testenv.Main(m)
}

func redis() services.Service {
	s, _ := services.Find("redis")
	return s
}

func need(t *testing.T) {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedRuntime(t, "runc")
	testenv.NeedTool(t, "unshare", "nsenter", "ip", "redis-server")
}

// Every service says all that the corpus and the evaluation go by.
func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range services.All() {
		t.Run(s.Name, func(t *testing.T) {
			if s.Name == "" || seen[s.Name] || s.Doc == "" || len(s.Packages) == 0 || len(s.Args) == 0 || s.Ready == nil {
				t.Errorf("%q is not described, or described twice", s.Name)
			}
			seen[s.Name] = true
			ops, load := map[string]bool{}, false
			for _, op := range s.Ops {
				if op.Name == "" || ops[op.Name] || op.Doc == "" || op.Do == nil {
					t.Errorf("operation %q is not described, or described twice", op.Name)
				}
				ops[op.Name], load = true, load || !op.Rare
			}
			if !load || len(ops) < 2 {
				t.Errorf("%d operations, load among them: %v; want load and a rare one", len(ops), load)
			}
		})
	}
}

func TestStart(t *testing.T) {
	need(t)
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			testenv.NeedRuntime(t, runtime)
			start(t, runtime)
		})
	}
}

func start(t *testing.T, runtime string) {
	created, edited := 0, false
	i, err := services.Start(t.Context(), redis(), services.Options{
		Runtime: []string{"env", runtime}, // as below something that runs it
		Edit: func(spec *specs.Spec) error {
			edited = true
			score := 500
			spec.Process.OOMScoreAdj = &score
			return nil
		},
		Created: func(i *services.Instance) error {
			created = i.PID
			comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", i.PID))
			if strings.HasPrefix(string(comm), "redis") {
				return fmt.Errorf("it is %q already: %w", comm, err)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Remove(); err != nil {
			t.Error(err)
		}
	})
	if !edited || created != i.PID {
		t.Errorf("edited: %v; created %d, and runs as %d", edited, created, i.PID)
	}
	for _, op := range redis().Ops {
		if op.Name == "load" || op.Name == "bgsave" {
			if err := op.Do(t.Context(), i); err != nil {
				t.Errorf("%s: %v", op.Name, err)
			}
		}
	}
	// A network of its own, outside programs enter it, and nothing of the host's is seen but what is installed.
	if out, err := i.Exec(t.Context(), "redis-cli", "config", "get", "dir"); err != nil || !strings.Contains(out, "/data") {
		t.Errorf("redis-cli from outside: %q, %v", out, err)
	}
	if home, err := os.ReadDir(i.Path("/root")); err != nil || len(home) > 0 {
		t.Errorf("it sees %v of the host's /root, %v", home, err)
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", i.PID))
	if err != nil || string(score) != "500\n" {
		t.Errorf("its score is %q, %v; want what was edited", score, err)
	}
	dir := i.Dir
	if err := i.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(i.Remove(), i.Remove()); err != nil {
		t.Error(err)
	}
	gone(t, dir, os.Getpid())
}

// What cannot start leaves nothing behind, and says why.
func TestStartFails(t *testing.T) {
	need(t)
	s := redis()
	s.Args = append(s.Args, "--no-such-option", "yes")
	var dir string
	_, err := services.Start(t.Context(), s, services.Options{Created: func(i *services.Instance) error { dir = i.Dir; return nil }})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("Start = %v, want what redis says", err)
	}
	gone(t, dir, os.Getpid())
}

// A harness that is killed leaves nothing behind.
func TestKilledHarness(t *testing.T) {
	need(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childVariable+"=yes")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	if _, err := fmt.Fscanf(out, "started %d %s\n", &pid, &dir); err != nil {
		t.Errorf("the child: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := services.Eventually(t.Context(), 20*time.Second, func() error {
		if err := unix.Kill(pid, 0); err == nil {
			return fmt.Errorf("the container's init %d lives", pid)
		}
		_, err := os.Stat(dir)
		if err == nil {
			return fmt.Errorf("%s is still there", dir)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	gone(t, dir, cmd.Process.Pid)
}

// hierarchy is one in which a test may make cgroups.
func hierarchy(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if _, err := os.Stat(dir + "/cgroup.procs"); err == nil {
			return dir
		}
	}
	t.Fatal("no cgroups are mounted")
	return ""
}

// A harness that is interrupted while a runtime makes a container leaves nothing behind, though no state tells of it.
func TestInterruptedCreate(t *testing.T) {
	need(t)
	made := filepath.Join(t.TempDir(), "made")
	script := fmt.Sprintf(`for id; do :; done; mkdir -p %[1]s/$id/child; setsid sleep 1000 & echo $! >%[1]s/$id/child/cgroup.procs; echo $! >%[2]s.pid; mv %[2]s.pid %[2]s; wait`,
		hierarchy(t), made)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := services.Start(ctx, redis(), services.Options{Runtime: []string{"sh", "-c", "sleep 0.2; " + script, "runc"}})
		done <- err
	}()
	if err := services.Eventually(t.Context(), 20*time.Second, func() error { _, err := os.Stat(made); return err }); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err == nil || strings.Contains(err.Error(), "remove a container") {
		t.Errorf("Start = %v, want that it was interrupted, and nothing of removing", err)
	}
	gone(t, made+".none", os.Getpid())
	ended(t, made)
}

// ended tells whether the process whose number is in a file is no more.
func ended(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	if err := services.Eventually(t.Context(), 10*time.Second, func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// What a harness has left that was killed with its keeper is removed by the next one; what a living one has is not.
func TestSweep(t *testing.T) {
	need(t)
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	left := fmt.Sprintf("%s/wsvc-%d-1-left", hierarchy(t), dead.Process.Pid)
	living := fmt.Sprintf("%s/wsvc-%d-9999-living", hierarchy(t), os.Getpid())
	for _, dir := range []string{left, left + "/child", living} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Remove(living) })
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleeper.Process.Kill() })
	if err := os.WriteFile(left+"/child/cgroup.procs", fmt.Append(nil, sleeper.Process.Pid), 0); err != nil {
		t.Fatal(err)
	}
	if err := services.Sweep(); err != nil {
		t.Error(err)
	}
	gone(t, left, dead.Process.Pid)
	if err := sleeper.Wait(); err == nil {
		t.Error("what ran in it has ended by itself")
	}
	if _, err := os.Stat(living); err != nil {
		t.Errorf("the cgroup of a harness that lives: %v", err)
	}
}

// gone tells whether nothing is left of an instance that a process started: neither its files nor its cgroups nor its mounts.
func gone(t *testing.T, dir string, owner int) {
	t.Helper()
	if dir == "" {
		t.Fatal("there was no instance")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("a mount is left below %s (%v)", dir, err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/wsvc-%d-*", "/sys/fs/cgroup/*/wsvc-%d-*"} {
		left, err := filepath.Glob(fmt.Sprintf(pattern, owner))
		if err != nil || len(left) > 0 {
			t.Errorf("cgroups are left: %q, %v", left, err)
		}
	}
}
