// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestOrigin(t *testing.T) {
	testenv.NeedRoot(t)
	exe := caller(t, false)
	// In /var/tmp, as the file system of /tmp may be in memory.
	disk, err := os.MkdirTemp("/var/tmp", "origin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(disk) })
	memory, err := os.MkdirTemp("/dev/shm", "origin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	for _, test := range []struct {
		what, dir, file string
		want            judge.Class
		path, why       string // parts of what is said
	}{
		{what: "own", want: judge.File, path: exe},
		{what: "libc", want: judge.File, path: "libc.so.6"},
		{what: "vdso", want: judge.Vdso, path: "[vdso]"},
		{what: "vdsopatched", want: judge.Writable, path: "[vdso]", why: "modified"},
		{what: "anonymous", want: judge.Anonymous},
		{what: "jit", want: judge.Anonymous},
		{what: "shared", want: judge.Anonymous},
		{what: "heap", want: judge.Heap, path: "[heap]"},
		{what: "stack", want: judge.Stack, path: "[stack]"},
		{what: "data", want: judge.Writable, path: exe},
		{what: "memfd", want: judge.Memfd, path: "libc.so.6"},
		{what: "nothing", want: judge.Unknown, why: "nothing is mapped"},
		{what: "file", dir: disk, file: "old", want: judge.File, path: "/old"},
		{what: "file", dir: disk, file: "two\nlines \"é\x01", want: judge.File, path: `/two\nlines "é\x01`},
		{what: "file", dir: disk, file: "[vdso]", want: judge.File, path: "/[vdso]"},
		{what: "dropped", dir: disk, want: judge.Foreign, why: "after the container had started"},
		{what: "file", dir: memory, file: "old", want: judge.Foreign, why: "in memory"},
		{what: "dropped", dir: memory, want: judge.Foreign, why: "in memory"},
		{what: "writable", dir: disk, file: "old", want: judge.Writable, why: "writable"},
		{what: "writableshared", dir: disk, file: "old", want: judge.Writable, why: "writable"},
		{what: "patched", dir: disk, file: "old", want: judge.Writable, why: "modified"},
		{what: "noexec", dir: disk, file: "old", want: judge.Unknown, why: "not executable"},
		{what: "deleted", dir: disk, file: "old", want: judge.Foreign, why: "deleted"},
		{what: "replaced", dir: disk, file: "old", want: judge.Foreign, why: "deleted"},
	} {
		t.Run(test.what+"/"+filepath.Base(test.dir)+"/"+test.file, func(t *testing.T) {
			both(t, func(t *testing.T, g *Gatherer) {
				file := filepath.Join(test.dir, "new")
				_ = os.Remove(file)
				if test.file != "" {
					file = withCode(t, test.dir, test.file)
				}
				pid, ip := start(t, exec.Command(exe, test.what, file))
				got := g.Origin(pid, ip)
				if got.Class != test.want || !strings.Contains(got.Path, test.path) || !strings.Contains(got.Why, test.why) {
					t.Errorf("the origin is %+v, want class %d, path %q, why %q", got, test.want, test.path, test.why)
				}
				if (got.Class == judge.Unknown) != (got.Class == judge.Unknown && got.Why != "") {
					t.Errorf("unknown, and no reason: %+v", got)
				}
			})
		})
	}
}

func TestOriginOfStaticGo(t *testing.T) {
	testenv.NeedRoot(t)
	both(t, func(t *testing.T, g *Gatherer) {
		self, err := os.Readlink("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		got := g.Origin(os.Getpid(), uint64(codeAddress()))
		if got.Path != self || (got.Class != judge.File && !strings.Contains(got.Why, "after the container")) {
			t.Errorf("the origin is %+v, want a file %s", got, self)
		}
	})
}

func TestOriginOfNobody(t *testing.T) {
	g := NewGatherer(0)
	for _, tid := range []int{-1, 0, 1 << 30} {
		if got := g.Origin(tid, 4096); got.Class != judge.Unknown || got.Why == "" {
			t.Errorf("the origin in thread %d is %+v", tid, got)
		}
	}
	for _, ip := range []uint64{0, 1, 2, ^uint64(0), 1 << 63} {
		if got := g.Origin(os.Getpid(), ip); got.Class != judge.Unknown || got.Why == "" {
			t.Errorf("the origin at %#x is %+v", ip, got)
		}
	}
	if got := g.Origin(os.Getpid(), 0xffffffffff600009); got.Class != judge.Vdso {
		t.Errorf("the origin in the vsyscall page is %+v", got)
	}
}

// A process with very many mappings costs no more than a part of its list.
func TestOriginAmongManyMappings(t *testing.T) {
	testenv.NeedRoot(t)
	exe := caller(t, false)
	pid, ip := start(t, exec.Command(exe, "many"))
	both(t, func(t *testing.T, g *Gatherer) {
		if got := g.Origin(pid, ip); got.Class != judge.File {
			t.Errorf("the origin is %+v", got)
		}
	})
}
