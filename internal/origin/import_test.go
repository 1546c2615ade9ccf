// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func call(t testing.TB, name string) syscalls.Call {
	t.Helper()
	nr, ok := syscalls.Number(syscalls.X86_64, name)
	if !ok {
		t.Fatalf("no call %s", name)
	}
	return syscalls.Call{ABI: syscalls.X86_64, Nr: nr}
}

func TestImport(t *testing.T) {
	testenv.NeedRoot(t)
	exe := caller(t, false)
	both(t, func(t *testing.T, g *Gatherer) {
		pid, _ := start(t, exec.Command(exe, "own"))
		for _, test := range []struct {
			call   string
			want   judge.Carrier
			symbol string
		}{
			{"memfd_create", judge.Imports, "memfd_create"},
			{"unlink", judge.Imports, "unlink"},
			{"mprotect", judge.Imports, "mprotect"},
			{"openat2", judge.Imports, "open"}, // the equivalent's
			{"unshare", judge.None, ""},        // libc has it, and counts for nobody
			{"bpf", judge.None, ""},
			{"execve", judge.None, ""},
		} {
			got := g.Import(pid, call(t, test.call))
			if got.Carrier != test.want || got.Symbol != test.symbol {
				t.Errorf("%s: got %+v, want %d by %q", test.call, got, test.want, test.symbol)
			}
			if got.Carrier == judge.Imports && got.Object != exe {
				t.Errorf("%s: the object is %q, want %q", test.call, got.Object, exe)
			}
			if got.Carrier == judge.None && got.Objects < 3 {
				t.Errorf("%s: %d objects were read, want the program, the library and the loader", test.call, got.Objects)
			}
		}
		i386 := syscalls.Call{ABI: syscalls.I386, Nr: 5} // open, through int $0x80 in a 64-bit program
		if got := g.Import(pid, i386); got.Carrier != judge.None {
			t.Errorf("a call of an ABI that no file is made for: %+v", got)
		}
	})
}

func TestImportOfStatic(t *testing.T) {
	testenv.NeedRoot(t)
	pid, _ := start(t, exec.Command(caller(t, true), "own"))
	g := NewGatherer(0)
	for _, name := range []string{"memfd_create", "mprotect"} {
		if got := g.Import(pid, call(t, name)); got.Carrier != judge.Contains {
			t.Errorf("%s: got %+v, want that it contains the call", name, got)
		}
	}
	// A static C library makes calls whose number cannot be found, so nobody can say that it does not need one.
	if got := g.Import(pid, call(t, "unshare")); got.Carrier != judge.NotRead || !strings.Contains(got.Why, "not fully known") {
		t.Errorf("unshare: got %+v", got)
	}
}

// What an attacker maps does not speak for the attacker.
func TestImportOfForeignFile(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedGCC(t)
	dir, err := os.MkdirTemp("/dev/shm", "origin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	source, library := filepath.Join(dir, "x.c"), filepath.Join(dir, "libneed.so")
	if err := os.WriteFile(source, []byte("int unshare(int); int need(void) { return unshare(0); }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	exe := caller(t, false)
	for _, test := range []struct {
		dir  string
		want judge.Carrier
	}{{dir, judge.None}, {compiled.dir, judge.Imports}} {
		at := filepath.Join(test.dir, "libneed.so")
		content, err := os.ReadFile(library)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, content, 0o755); err != nil {
			t.Fatal(err)
		}
		age(t, at)
		cmd := exec.Command(exe, "own")
		cmd.Env = append(os.Environ(), "LD_PRELOAD="+at)
		pid, _ := start(t, cmd)
		if got := NewGatherer(0).Import(pid, call(t, "unshare")); got.Carrier != test.want {
			t.Errorf("%s: got %+v, want %d", at, got, test.want)
		}
	}
}

// More than may be read while a call is held is read by Warm.
func TestWarm(t *testing.T) {
	testenv.NeedRoot(t)
	pid, _ := start(t, exec.Command(caller(t, true), "own"))
	home, err := HomeOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	g := NewGatherer(0).In(home)
	p, err := g.open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	v, err := g.visit(p, 4096)
	if err != nil || v.missed != 1 || len(v.objects) != 1 || !strings.Contains(v.why, "limit") {
		t.Errorf("with few bytes: %+v, %v", v, err)
	}
	if got := g.Import(pid, call(t, "unshare")); got.Carrier != judge.NotRead || !strings.Contains(got.Why, "limit") {
		t.Errorf("before Warm: %+v", got)
	}
	if err := g.Warm(pid); err != nil {
		t.Error(err)
	}
	if got := g.Import(pid, call(t, "unshare")); strings.Contains(got.Why, "limit") {
		t.Errorf("after Warm: %+v", got)
	}
	if err := g.Warm(0); err == nil {
		t.Error("nobody's files were read")
	}
}

func TestImportOfNobody(t *testing.T) {
	if got := NewGatherer(0).Import(1<<30, call(t, "open")); got.Carrier != judge.NotRead || got.Why == "" {
		t.Errorf("got %+v", got)
	}
}

// A file that changed is another file.
func TestChangedFileIsReadAgain(t *testing.T) {
	testenv.NeedRoot(t)
	file := withCode(t, "/var/tmp", "origin-"+filepath.Base(compiled.dir))
	t.Cleanup(func() { _ = os.Remove(file) })
	pid, _ := start(t, exec.Command(caller(t, false), "file", file))
	g := NewGatherer(0)
	if err := g.Warm(pid); err != nil {
		t.Fatal(err)
	}
	before := len(g.files.by)
	if err := os.WriteFile(file, []byte("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := g.Warm(pid); err != nil {
		t.Fatal(err)
	}
	if len(g.files.by) != before {
		t.Errorf("a file that was written to while it is mapped was read: %d files, before %d", len(g.files.by), before)
	}
}

func TestCache(t *testing.T) {
	c := newCache[identity, string](2)
	id := func(n uint64) identity { return identity{ino: n} }
	c.put(id(1), "1")
	c.put(id(2), "2")
	c.get(id(1))
	c.put(id(3), "3")
	if _, ok := c.get(id(2)); ok || len(c.by) != 2 || c.used.Len() != 2 {
		t.Errorf("the one that was not asked for is still there, of %d", len(c.by))
	}
	c.put(id(1), "again")
	if e, ok := c.get(id(1)); !ok || e != "again" || c.used.Len() != 2 {
		t.Errorf("got %q, %v", e, ok)
	}
}
