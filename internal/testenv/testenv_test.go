// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestRequired(t *testing.T) {
	for _, tt := range []struct {
		name, list, need string
		want             bool
	}{
		{"nothing required", "", "root", false},
		{"all", "all", "anything", true},
		{"named", "bpf,root", "root", true},
		{"named with spaces", "bpf, root", "root", true},
		{"another", "bpf", "root", false},
		{"not by prefix", "podman-compose", "podman", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := required(tt.list, tt.need); got != tt.want {
				t.Errorf("required(%q, %q) = %v, want %v", tt.list, tt.need, got, tt.want)
			}
		})
	}
}

// verdict is a testing.TB that records how a test ended.
type verdict struct {
	testing.TB
	said string
}

func (v *verdict) Helper()               {}
func (v *verdict) Name() string          { return "TestSomething" }
func (v *verdict) Fatalf(string, ...any) { v.end("failed") }
func (v *verdict) Skipf(string, ...any)  { v.end("skipped") }

func (v *verdict) end(how string) {
	v.said = how
	runtime.Goexit() // as the real ones do
}

func TestNeed(t *testing.T) {
	for _, tt := range []struct {
		name, require, reason, want string
	}{
		{"met", "all", "", ""},
		{"missing on a laptop", "", "no such thing", "skipped"},
		{"missing in CI", "all", "no such thing", "failed"},
		{"missing and another required", "root", "no such thing", "skipped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noted := filepath.Join(t.TempDir(), "skipped")
			t.Setenv(requireVar, tt.require)
			t.Setenv(skippedVar, noted)
			v := &verdict{}
			var wg sync.WaitGroup
			wg.Go(func() { need(v, "thing", tt.reason) })
			wg.Wait()
			if v.said != tt.want {
				t.Errorf("the test %q, want %q", v.said, tt.want)
			}
			line, _ := os.ReadFile(noted)
			if got := strings.Contains(string(line), "TestSomething"); got != (tt.want == "skipped") {
				t.Errorf("noted skips: %q after the test %q", line, v.said)
			}
		})
	}
}

func TestNeedsThatEveryMachineAnswers(t *testing.T) {
	if got := tool("sh"); got != "" {
		t.Errorf("tool(sh) = %q, want it found", got)
	}
	if got := tool("no-such-program-of-whittle"); got == "" {
		t.Error("a program that does not exist was found")
	}
	if got := probe("sh", "-c", "echo first; echo why; exit 3"); !strings.Contains(got, "why") || !strings.Contains(got, "3") {
		t.Errorf("probe says %q, want the exit status and the last line", got)
	}
}

func TestProbes(t *testing.T) {
	for _, tt := range []struct {
		name string
		need func(testing.TB)
	}{
		{"root", NeedRoot},
		{"bpf", NeedBPF},
		{"podman", NeedPodman},
		{"gcc", NeedGCC},
		{"libseccomp", NeedLibseccomp},
		{"i386", NeedI386},
		{"crun", func(t testing.TB) { NeedRuntime(t, "crun") }},
		{"runc", func(t testing.TB) { NeedRuntime(t, "runc") }},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.need(t) })
	}
}

func TestLeaksAreFound(t *testing.T) {
	clean := Checked(nil)
	if got := settle(clean.leaks); len(got) != 0 {
		t.Fatalf("before leaking: %q", got)
	}
	tests := []struct {
		name string
		leak func(t *testing.T) (stop func())
		want string
	}{
		{"file", func(t *testing.T) func() {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		}, os.DevNull},
		{"goroutine", func(*testing.T) func() {
			stop := make(chan struct{})
			go waitHere(stop)
			return func() { close(stop) }
		}, "waitHere"},
		{"child", func(t *testing.T) func() {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() { cmd.Process.Kill(); cmd.Wait() }
		}, "child process"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stop := tt.leak(t)
			got := strings.Join(clean.leaks(), "\n")
			stop()
			if !strings.Contains(got, tt.want) {
				t.Errorf("leaks = %q, want one that names %q", got, tt.want)
			}
		})
	}
	var out bytes.Buffer
	if code := clean.report(&out, []string{"fd 9: /tmp/forgotten"}); code != 1 || !strings.Contains(out.String(), "forgotten") {
		t.Errorf("report = %d, %q", code, out.String())
	}
}

func waitHere(stop chan struct{}) { <-stop }
