// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func read(t testing.TB, path string) Calls {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Read(f, st.Size(), DefaultLimits())
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	return c
}

// imported are the names of the calls that a file imports.
func imported(c Calls) (names []string) {
	for nr := range c.Imports {
		names = append(names, syscalls.Name(c.ABI, nr))
	}
	return names
}

// Programs of the machine: their imports are what debug/elf finds by the section headers.
func TestRealPrograms(t *testing.T) {
	testenv.NeedTool(t, "git", "gcc")
	for _, name := range []string{"git", "sh", "ls", "nginx", "redis-server"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue // not on every machine; git, sh and ls are
		}
		c := read(t, path)
		file, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := file.ImportedSymbols()
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[uint32][]string)
		for _, s := range symbols {
			w, ok := wrappersOf(c.ABI).find([]byte(s.Name))
			for _, nr := range w.calls {
				if ok && !slices.Contains(want[nr], w.name) {
					want[nr] = append(want[nr], w.name)
				}
			}
		}
		if len(want) == 0 || len(want) != len(c.Imports) {
			t.Errorf("%s: imports make %d calls, want %d", name, len(c.Imports), len(want))
		}
		for nr := range want {
			slices.Sort(want[nr])
			if got := slices.Sorted(slices.Values(c.Imports[nr])); !slices.Equal(got, want[nr]) {
				t.Errorf("%s: %s by %q, want %q", name, syscalls.Name(c.ABI, nr), got, want[nr])
			}
		}
		if c.CLibrary || c.Static || c.BuildID == "" {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c := read(t, libc(t)); !c.CLibrary || len(c.Imports) > 0 || !c.Sites.Empty() {
		t.Errorf("the C library: %+v", c)
	}
}

// build a program with gcc.
func build(t *testing.T, source string, flags ...string) string {
	t.Helper()
	testenv.NeedGCC(t)
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.c"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("gcc", append(flags, "-o", out, in)...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	return out
}

func TestStrippedAndTableKinds(t *testing.T) {
	testenv.NeedTool(t, "objcopy")
	const source = "#define _GNU_SOURCE\n#include <sched.h>\n#include <unistd.h>\n#include <stdlib.h>\n" +
		"int main(int c, char **v) { void *p = (void *)unshare; (void)p; sethostname(v[0], 1); return unshare(c) + system(v[0]); }"
	for _, flags := range [][]string{
		{"-s"}, {"-s", "-Wl,--hash-style=sysv"}, {"-s", "-Wl,--hash-style=gnu"}, {"-s", "-no-pie"}, {"-s", "-Wl,-z,now"},
	} {
		path := build(t, source, flags...)
		bare := path + "-bare"
		if out, err := exec.Command("objcopy", "--strip-all", "--strip-section-headers", path, bare).CombinedOutput(); err == nil {
			path = bare
		} else { // older binutils keep the section headers: write over their place in the header
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v, %s", err, out)
			}
			copy(content[40:48], make([]byte, 8)) // e_shoff
			copy(content[58:64], make([]byte, 6)) // e_shentsize, e_shnum, e_shstrndx
			if err := os.WriteFile(bare, content, 0o755); err != nil {
				t.Fatal(err)
			}
			path = bare
		}
		names := imported(read(t, path))
		for _, want := range []string{"unshare", "sethostname", "execve", "clone3"} {
			if !slices.Contains(names, want) {
				t.Errorf("%v: %q does not have %s", flags, names, want)
			}
		}
		if slices.Contains(names, "bpf") {
			t.Errorf("%v: %q has bpf", flags, names)
		}
	}
}

func TestSitesOfC(t *testing.T) {
	const source = `
int main(void) {
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(272) : "rcx", "r11", "memory"); // unshare
	__asm__ volatile("mov %1, %%rax; xor %%r8d, %%r8d; syscall" : "=a"(r) : "i"(165) : "rcx", "r8", "r11", "memory"); // mount
	__asm__ volatile("push $57; pop %%rax; syscall" : "=a"(r) : : "rcx", "r11", "memory"); // fork
	return r < 0;
}`
	if runtime.GOARCH != "amd64" {
		t.Log("the code is for x86-64")
		return
	}
	c := read(t, build(t, source, "-O1"))
	if got, want := c.Sites.Names(c.ABI), []string{"fork", "mount", "unshare"}; !slices.Equal(got, want) {
		t.Errorf("the sites make %q, want %q", got, want)
	}
	static := read(t, build(t, source, "-O1", "-static"))
	if !static.Static || !static.Sites.Has(272) || !static.Sites.Has(165) || static.Sites.Has(321) {
		t.Errorf("static: %v %q", static.Static, static.Sites.Names(c.ABI))
	}
}

func TestStaticGo(t *testing.T) {
	testenv.NeedTool(t, "go")
	dir := t.TempDir()
	source := "package main\n\nimport \"syscall\"\n\nfunc main() { _ = syscall.Unshare(0); _ = syscall.Mount(\"a\", \"b\", \"c\", 0, \"\") }\n"
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", arch, "main.go")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch, "GOFLAGS=", "GO111MODULE=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		c := read(t, filepath.Join(dir, arch))
		abi, _ := syscalls.Native(arch)
		if c.ABI != abi || !c.Static || len(c.Imports) > 0 {
			t.Errorf("%s: %+v", arch, c)
		}
		for _, name := range []string{"futex", "mmap", "rt_sigaction", "sched_yield"} {
			if nr, _ := syscalls.Number(abi, name); !c.Sites.Has(nr) {
				t.Errorf("%s: no %s in %q", arch, name, c.Sites.Names(abi))
			}
		}
		// What it calls through package syscall is found by its callers, on x86-64.
		if arch == "arm64" {
			if !strings.Contains(c.Partial, "not next to") {
				t.Errorf("%s: partial is %q", arch, c.Partial)
			}
			continue
		}
		for name, want := range map[string]bool{"unshare": true, "mount": true, "bpf": false, "setns": false, "reboot": false} {
			if nr, _ := syscalls.Number(abi, name); c.Sites.Has(nr) != want {
				t.Errorf("%s: %s is %v in %q", arch, name, !want, c.Sites.Names(abi))
			}
		}
	}
}

// syscall(2) is traced to its callers, however the linker makes the call.
func TestCallsOfSyscall(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Log("the code is for x86-64")
		return
	}
	const source = "#define _GNU_SOURCE\n#include <unistd.h>\n" +
		"int main(int c, char **v) { long r = syscall(272, 0); r += syscall(321, c, v, 9); return r + syscall(39); }"
	for _, flags := range [][]string{{"-O2"}, {"-O0"}, {"-O1", "-fno-plt"}, {"-O1", "-fcf-protection=full", "-Wl,-z,ibtplt"}, {"-O1", "-no-pie"}, {"-O1", "-s"}} {
		c := read(t, build(t, source, flags...))
		if got, want := c.Sites.Names(c.ABI), []string{"bpf", "unshare"}; !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) || len(got) > 3 {
			t.Errorf("%v: syscall makes %q, want %q and getpid; %s", flags, got, want, c.Partial)
		}
	}
	const passes = "#define _GNU_SOURCE\n#include <unistd.h>\nint main(int c, char **v) { return syscall(c); }"
	if c := read(t, build(t, passes, "-O0")); c.Partial == "" || !c.Sites.Empty() {
		t.Errorf("a number from elsewhere: %q, %q", c.Sites.Names(c.ABI), c.Partial)
	}
}

func BenchmarkRead(b *testing.B) {
	path, err := exec.LookPath("git")
	if err != nil {
		b.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(st.Size())
	b.ReportAllocs()
	for b.Loop() {
		read(b, path)
	}
}
