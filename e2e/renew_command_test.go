// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// whittle runs the command with this bed's Podman and a state directory of its own.
func (b *renewBed) whittle(t *testing.T, args ...string) (out, talk string, code int) {
	t.Helper()
	return b.whittleAt(t, b.env.Socket(), args...)
}

// elsewhere runs it with a Podman that there is not.
func (b *renewBed) elsewhere(t *testing.T, args ...string) (out, talk string, code int) {
	t.Helper()
	return b.whittleAt(t, filepath.Join(t.TempDir(), "podman.sock"), args...)
}

func (b *renewBed) whittleAt(t *testing.T, socket string, args ...string) (out, talk string, code int) {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), binary(t), append(args, "--podman", socket, "--state", filepath.Dir(b.dir))...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func TestRenewCommand(t *testing.T) {
	b := upRenew(t, true)
	profile := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	out, talk, code := b.whittle(t, "renew", "web", "--profile", profile, "--dry-run")
	for _, want := range []string{"web would be renewed by hold", "/data can be written to", "not       overlap: two instances would write", "let new connections wait"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("--dry-run: %d, %s%s\nwant %q in it", code, out, talk, want)
		}
	}
	b.holds(t, "first")

	var result renew.Result
	out, talk, code = b.whittle(t, "renew", "web", "--profile", profile, "--json")
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 || result.Outcome != renew.Renewed {
		t.Fatalf("renew: %d, %v, %s%s", code, err, out, talk)
	}
	b.holds(t, "first") // it says what the predecessor said
	c, err := b.engine.Inspect(t.Context(), "web")
	if err != nil || c.Seccomp != profile || c.ID != result.Serving || c.ID == b.id {
		t.Errorf("web is %s, under %s, %v; want %s, under %s", c.ID, c.Seccomp, err, result.Serving, profile)
	}

	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no way", []string{"renew", "web", "--strategy", "overlap"}, 1, "two instances would write"},
		{"not ready", []string{"renew", "web", "--ready-exec", "false", "--patience", "1s"}, 1, "web was not renewed, and the predecessor serves"},
		{"nobody", []string{"renew", "nobody"}, 1, "no such container"},
		{"a typo", []string{"renew", "web", "--strategy", "hope"}, 2, "unknown strategy"},
		{"nothing to recover", []string{"renew", "--recover"}, 0, "nothing was left"},
	} {
		if out, talk, code := b.whittle(t, tt.args...); code != tt.code || !strings.Contains(talk, tt.want) {
			t.Errorf("%s: %d, %s%s\nwant %d, %q", tt.name, code, out, talk, tt.code, tt.want)
		}
	}
	b.holds(t, "first")

	b.killed(t, b.request("", ""), renew.StepTurn)
	if out, talk, code := b.whittle(t, "renew", "web"); code != 1 || !strings.Contains(talk, "whittle: hint: finish or undo it first") {
		t.Errorf("after a cut: %d, %s%s", code, out, talk)
	}
	if out, talk, code := b.elsewhere(t, "renew", "--recover"); code != 0 || !strings.Contains(talk, "--podman "+b.env.Socket()) {
		t.Errorf("recover with another Podman: %d, %s%s; want it to name this one", code, out, talk)
	}
	if out, talk, code := b.whittle(t, "renew", "--recover"); code != 0 || !strings.Contains(out, "web was renewed by hold") {
		t.Errorf("recover: %d, %s%s", code, out, talk)
	}
	b.holds(t, "second")

	b.killed(t, b.request("", ""), renew.StepForm)
	bedtest.Podman(t, b.env, "rm", "--force", "--time", "0", "web")
	if out, talk, code := b.whittle(t, "renew", "--recover", "--json"); code != 1 || !strings.Contains(out, `"failed"`) {
		t.Errorf("recover what nobody can: %d, %s%s; want status 1", code, out, talk)
	}
}

// The renewal is made in a process of its own; whoever wanted it may go away, and is told by Recover.
func TestRenewJob(t *testing.T) {
	b := upRenew(t, false)
	var steps []renew.Done
	job := renew.Job{
		Request: b.request("", ""), Engine: "podman", Socket: b.env.Socket(), Dir: b.dir,
		Tell: func(d renew.Done) { steps = append(steps, d) },
	}
	result, err := renew.RunJob(t.Context(), binary(t), job)
	if err != nil || result.Outcome != renew.Renewed || len(steps) < 2*len(result.Steps) {
		t.Fatalf("%v, %s, told of %d", err, describe(result), len(steps))
	}
	b.holds(t, "second")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	job.Request.Changes = engine.Changes{Env: map[string]string{"WHO": "third"}}
	job.Tell = func(d renew.Done) {
		if d.Step == renew.StepStart {
			cancel()
		}
	}
	if result, err := renew.RunJob(ctx, binary(t), job); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, %s; want it canceled", err, describe(result))
	}
	var results []renew.Result
	eventually(t, "the renewal has ended", func() (bool, string) {
		results, err = b.runner().Recover(t.Context())
		return len(results) > 0, fmt.Sprint(err)
	})
	if err != nil || len(results) != 1 || results[0].Outcome != renew.Renewed || results[0].Why != "" {
		t.Errorf("%v, %s; want it renewed by its own process", err, describe(results))
	}
	b.holds(t, "third")

	job.Request.Container = "nobody"
	if _, err := renew.RunJob(t.Context(), binary(t), job); err == nil || !strings.Contains(err.Error(), "no such container") {
		t.Errorf("of nobody: %v", err)
	}
	job.Request = b.request("", "hope")
	if _, err := renew.RunJob(t.Context(), binary(t), job); err == nil || !strings.Contains(err.Error(), "unknown strategy") {
		t.Errorf("by hope: %v", err)
	}
}
