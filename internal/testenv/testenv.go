// SPDX-License-Identifier: Apache-2.0

// Package testenv says what a test needs from the machine (root, BPF, an engine, a tool) and checks that a test
// binary leaves nothing behind. It starts nothing on the machine beyond short probes, and installs nothing.
//
// A need that is not met skips the test on a laptop. It fails the test when the environment variable
// WHITTLE_TEST_REQUIRE names it ("root,bpf,podman", or "all"), as CI does: a gate that skips is not a gate. When
// WHITTLE_TEST_SKIPPED names a file, every skip is appended to it, so that `make test` can say at its end what did
// not run.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

const (
	requireVar = "WHITTLE_TEST_REQUIRE"
	skippedVar = "WHITTLE_TEST_SKIPPED"
)

// NeedRoot is for tests that need effective uid 0.
func NeedRoot(t testing.TB) {
	t.Helper()
	need(t, "root", root())
}

// NeedBPF is for tests that load programs: root, the kernel's BTF, and a raw tracepoint program that loads.
func NeedBPF(t testing.TB) {
	t.Helper()
	need(t, "bpf", bpf())
}

// NeedPodman is for tests that run containers as root: Podman and one OCI runtime.
func NeedPodman(t testing.TB) {
	t.Helper()
	need(t, "podman", podman())
}

// NeedDocker is for tests that run containers of a private Docker.
func NeedDocker(t testing.TB) {
	t.Helper()
	need(t, "docker", daemon("dockerd", "docker", "containerd", "runc"))
}

// NeedContainerd is for tests that run containers of a private containerd.
func NeedContainerd(t testing.TB) {
	t.Helper()
	need(t, "containerd", daemon("containerd", "ctr", "containerd-shim-runc-v2", "runc"))
}

// NeedRuntime is for tests that call an OCI runtime ("runc", "crun") directly.
func NeedRuntime(t testing.TB, name string) {
	t.Helper()
	reason := root()
	if reason == "" {
		reason = tool(name)
	}
	need(t, name, reason)
}

// NeedTool is for tests that run programs found on PATH. Each name is a need of its own.
func NeedTool(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		need(t, name, tool(name))
	}
}

// NeedGCC is for tests that compile C against the C library.
func NeedGCC(t testing.TB) {
	t.Helper()
	need(t, "gcc", gcc())
}

// NeedLibseccomp is for tests that compile against libseccomp, an oracle for our own filter compiler.
func NeedLibseccomp(t testing.TB) {
	t.Helper()
	need(t, "libseccomp", libseccomp())
}

// NeedI386 is for tests that build and run 32-bit x86 programs: a compiler that can, and a kernel that emulates.
func NeedI386(t testing.TB) {
	t.Helper()
	need(t, "i386", i386())
}

// need skips or fails t when reason, why the need is not met, is not empty.
func need(t testing.TB, name, reason string) {
	t.Helper()
	if reason == "" {
		return
	}
	if required(os.Getenv(requireVar), name) {
		t.Fatalf("needs %s, which %s requires: %s", name, requireVar, reason)
	}
	if err := noteSkip(os.Getenv(skippedVar), t.Name(), name, reason); err != nil {
		t.Fatal(err)
	}
	t.Skipf("needs %s: %s", name, reason)
}

func required(list, name string) bool {
	names := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	return slices.Contains(names, "all") || slices.Contains(names, name)
}

func noteSkip(file, test, name, reason string) error {
	if file == "" {
		return nil
	}
	// One write with O_APPEND: test binaries of several packages write at the same time.
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("noting a skipped test: %w", err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "needs %s (%s): %s %s\n", name, reason, filepath.Base(os.Args[0]), test); err != nil {
		return fmt.Errorf("noting a skipped test: %w", err)
	}
	return nil
}

func root() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	return ""
}

func tool(name string) string {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Sprintf("%s is not on PATH", name)
	}
	return ""
}

var bpf = sync.OnceValue(func() string {
	if reason := root(); reason != "" {
		return reason
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return "the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)"
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.RawTracepoint,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual MIT/GPL",
	})
	if err != nil {
		return fmt.Sprintf("a raw tracepoint program does not load: %v", err)
	}
	defer prog.Close()
	return ""
})

var podman = sync.OnceValue(func() string {
	if reason := root(); reason != "" {
		return reason
	}
	if reason := tool("podman"); reason != "" {
		return reason
	}
	if tool("crun") != "" && tool("runc") != "" {
		return "neither crun nor runc is on PATH"
	}
	return probe("podman", "--version")
})

// daemon needs root, and all of these tools.
func daemon(tools ...string) string {
	if reason := root(); reason != "" {
		return reason
	}
	for _, name := range tools {
		if reason := tool(name); reason != "" {
			return reason
		}
	}
	return ""
}

var gcc = sync.OnceValue(func() string {
	return compiles(`int main(void) { return 0; }`)
})

var libseccomp = sync.OnceValue(func() string {
	return compiles("#include <seccomp.h>\nint main(void) { return seccomp_api_get() == 0; }", "-lseccomp")
})

// The program uses no header: glibc's 32-bit stubs header is missing on hosts that can still build with -m32.
var i386 = sync.OnceValue(func() string {
	return compiles(`int main(void) { return 0; }`, "-m32")
})

// compiles builds and runs a C program, and returns why that fails.
func compiles(source string, flags ...string) string {
	dir, err := os.MkdirTemp("", "whittle-testenv-")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(dir)
	in, out := filepath.Join(dir, "probe.c"), filepath.Join(dir, "probe")
	if err := os.WriteFile(in, []byte(source), 0o600); err != nil {
		return err.Error()
	}
	// Libraries go last: the linker takes from them what the objects before them ask for.
	if reason := probe("gcc", append([]string{"-o", out, in}, flags...)...); reason != "" {
		return reason
	}
	return probe(out)
}

// probe runs a command that ends by itself, and returns why it failed with the last line that it printed.
func probe(name string, args ...string) string {
	cmd := exec.Command(name, args...)
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSpace(fmt.Sprintf("%s: %v %s", filepath.Base(name), err, lines[len(lines)-1]))
}
