// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"golang.org/x/sys/unix"
)

// tree makes files below a new directory: text, or a link where the text begins with "->".
func tree(t *testing.T, files map[string]string) imageRoot {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// tinyELF is the least file that is one: a header, and program headers for an interpreter where one is given.
func tinyELF(interpreter string) string {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Shentsize: 64}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	if interpreter != "" {
		h.Phnum = 1
	}
	_ = binary.Write(&b, binary.LittleEndian, h)
	if interpreter != "" {
		n := uint64(len(interpreter) + 1)
		_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 120, Filesz: n, Memsz: n})
		b.WriteString(interpreter + "\x00")
	}
	return b.String()
}

// No name in an image leads out of it, and what is no plain file is not opened.
func TestImageRoot(t *testing.T) {
	root := tree(t, map[string]string{
		"bin/plain": "inside", "etc/passwd": "ours", "abs": "->/etc/passwd", "up": "->../../../../../../etc/passwd", "loop": "->loop", "dangling": "->nowhere",
		"host": "->/etc/os-release", "dir/file": "x", "proc": "->/proc/self/root/etc/passwd", "fd": "->/proc/self/fd/0",
	})
	if err := unix.Mkfifo(filepath.Join(root.dir.Name(), "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, want string }{
		{"/bin/plain", "inside"},
		{"bin/../bin/plain", "inside"},
		{"/../../bin/plain", "inside"},
		{"/abs", "ours"},
		{"/up", "ours"},
		{"/../../../../etc/passwd", "ours"},
		{"/host", ""},
		{"/loop", ""},
		{"/dangling", ""},
		{"/proc", ""},
		{"/fd", ""},
		{"/dir", ""},
		{"/pipe", ""},
		{"/bin/plain/x", ""},
		{"", ""},
		{"/a\x00b", ""},
		{"/" + strings.Repeat("a", 300), ""},
		{"/" + strings.Repeat("a/", 3000), ""},
	} {
		f, _, err := root.open(tt.name)
		if err != nil {
			if tt.want != "" || !errors.Is(err, errNoFile) {
				t.Errorf("open %.40q: %v, want %q", tt.name, err, tt.want)
			}
			continue
		}
		text, err := io.ReadAll(f)
		f.Close()
		if err != nil || string(text) != tt.want {
			t.Errorf("open %.40q = %q, %v, want %q", tt.name, text, err, tt.want)
		}
	}
	if got := string(root.head("/bin/plain", 3)); got != "ins" {
		t.Errorf("head = %q", got)
	}
}

// What is started comes down to a program, whatever starts it.
func TestProgram(t *testing.T) {
	glibc, musl := tinyELF("/lib64/ld-linux-x86-64.so.2"), tinyELF("/lib/ld-musl-x86_64.so.1")
	files := map[string]string{
		"usr/bin/web": glibc, "bin/sh": glibc, "bin/tini": glibc, "usr/bin/env": glibc, "usr/bin/python3.11": glibc, "usr/bin/python3": "->python3.11",
		"usr/bin/node": musl, "usr/sbin/php-fpm8.2": glibc, "opt/static": tinyELF(""), "usr/bin/valgrind": glibc, "bin/valgrind": glibc,
		"docker-entrypoint.sh": "#!/bin/sh\nexec \"$@\"\n", "usr/bin/gunicorn": "#!/usr/bin/python3\nimport x\n", "app/run": "#!/usr/bin/env -S node --x\n",
		"usr/bin/again": "#!/usr/bin/again\n", "usr/bin/a": "#!/usr/bin/b\n", "usr/bin/b": "#!/usr/bin/a\n", "usr/bin/text": "hello", "usr/bin/empty": "",
		"usr/bin/ruby-app": "#!/usr/bin/ruby\n", "usr/bin/bang": "#!", "usr/bin/long": "#!" + strings.Repeat("x", 5000),
		"etc/os-release": "NAME=x\nID=\"debian\"\n",
	}
	for _, tt := range []struct {
		argv, dir, path string
		want            string
		scripts         []string
	}{
		{"/usr/bin/web --serve", "", "", "/usr/bin/web", nil},
		{"web", "", "", "/usr/bin/web", nil},
		{"web", "", "/opt", "", nil},
		{"static", "", "/opt", "/opt/static", nil},
		{"./static", "/opt", "", "/opt/static", nil},
		{"docker-entrypoint.sh web --port 1", "/", "/:/usr/bin:/bin", "/usr/bin/web", nil},
		{"/bin/tini -- /docker-entrypoint.sh web", "", "", "/usr/bin/web", nil},
		{"env A=B sh -c web", "", "", "/usr/bin/web", nil},
		{"sh -c", "", "", "/bin/sh", nil},
		{"python3 app.py", "", "", "/usr/bin/python3", []string{"python3"}},
		{"gunicorn app:app", "", "", "/usr/bin/python3", []string{"python3"}},
		{"run", "/", "/app:/usr/bin", "/usr/bin/node", []string{"node"}},
		{"php-fpm8.2 -F", "", "", "/usr/sbin/php-fpm8.2", []string{"php"}},
		{"ruby-app", "", "", "", []string{"ruby"}}, // its interpreter is not there
		{"again", "", "", "", nil},
		{"a", "", "", "", nil},
		{"text", "", "", "", nil},
		{"empty bang long", "", "", "", nil},
		{"", "", "", "", nil},
		{"--help -x", "", "", "", nil},
	} {
		t.Run(tt.argv, func(t *testing.T) {
			root := tree(t, files)
			f, err := root.facts(started{argv: strings.Fields(tt.argv), path: tt.path, dir: tt.dir})
			if f.Path != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("the program is %q, %v, want %q", f.Path, err, tt.want)
			}
			if err != nil && hint.Of(err) == "" {
				t.Errorf("%v has no hint", err)
			}
			if diff := cmp.Diff(tt.scripts, f.Scripts); diff != "" {
				t.Errorf("interpreters (-want +got):\n%s", diff)
			}
			if f.Distro != "debian" {
				t.Errorf("the distribution is %q", f.Distro)
			}
			if f.Static != (tt.want == "/opt/static") || f.HasValgrind != (tt.path == "" || strings.Contains(tt.path, "bin")) {
				t.Errorf("static %v, valgrind %v", f.Static, f.HasValgrind)
			}
		})
	}
}

// Programs of this machine are what they are.
func TestELFFacts(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := factsBelow("/", started{argv: []string{self}})
	if err != nil || !f.Go || f.Rust {
		t.Errorf("this test is %+v, %v, want Go", f, err)
	}
	f, err = factsBelow("/", started{argv: []string{"/bin/ls"}})
	if err != nil || f.Go || f.Rust || f.Static || len(f.Needs) == 0 || f.Interpreter == "" {
		t.Errorf("ls is %+v, %v", f, err)
	}
	if slices.Contains(f.Needs, "libc.so.6") && !regexp.MustCompile(`^glibc 2\.[0-9]+$`).MatchString(f.Libc) {
		t.Errorf("the C library of ls is %q, want glibc and a version", f.Libc)
	}
}

// A sparse file of gigabytes costs what is read of it, and nothing makes the reader panic.
func TestHostileELF(t *testing.T) {
	huge := filepath.Join(t.TempDir(), "huge")
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Phentsize: 56, Shoff: 64, Shentsize: 64, Shnum: 2, Shstrndx: 1}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	_ = binary.Write(&b, binary.LittleEndian, elf.Section64{})
	_ = binary.Write(&b, binary.LittleEndian, elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: 0, Size: 4 << 30})
	if err := os.WriteFile(huge, b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 4<<30); err != nil {
		t.Fatal(err)
	}
	if _, err := factsBelow("/", started{argv: []string{huge}}); !errors.Is(err, errNotELF) || !errors.Is(err, errELFBudget) {
		t.Errorf("%v, want that it costs too much", err)
	}
}

func FuzzELFFacts(f *testing.F) {
	f.Add([]byte(tinyELF("")))
	f.Add([]byte(tinyELF("/lib64/ld-linux-x86-64.so.2")))
	if text, err := os.ReadFile("/bin/true"); err == nil && len(text) < 100_000 {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var facts oracle.ImageFacts
		if err := elfFacts(bytes.NewReader(text), int64(len(text)), &facts); err != nil && !errors.Is(err, errNotELF) {
			t.Errorf("%v, want that it is no ELF file", err)
		}
		hintText(hinted{Facts: factsJSON(facts), Hints: oracle.Hints(facts)})
	})
}

// Of an image nothing is executed and nothing stays mounted; a container is found by its name.
func TestHintsOfAnImage(t *testing.T) {
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "nsenter")
	e, err := testbed.Up(t.Context(), filepath.Join(t.TempDir(), "bed"), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Down(); err != nil {
			t.Error(err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	whittle := filepath.Join(t.TempDir(), "whittle")
	if err := os.Symlink(self, whittle); err != nil {
		t.Fatal(err)
	}
	busybox, err := image.Host("/bin/busybox", "bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	config := image.Config{Name: "localhost/hints:1"}
	config.Entrypoint, config.Cmd, config.Env = []string{"entry.sh"}, []string{"web", "--serve"}, []string{"PATH=/bin:/srv"}
	archive := filepath.Join(t.TempDir(), "image.tar")
	out, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	err = image.Write(out, config, []image.File{
		image.Data("bin/entry.sh", 0o755, []byte("#!/bin/sh\nexec /bin/busybox sleep 1000\n")), busybox, image.Symlink("bin/sh", "busybox"),
		image.Data("srv/web", 0o755, []byte(tinyELF("/lib64/ld-linux-x86-64.so.2"))), image.Data("etc/os-release", 0o644, []byte("ID=tiny\n")),
	})
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Run(t.Context(), "load", "--input", archive); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Run(t.Context(), "run", "--detach", "--name=twin", "--network=none", "localhost/hints:1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := e.Run(context.Background(), "rm", "--force", "--time=0", "twin"); err != nil {
			t.Error(err)
		}
	})
	hints := func(name string) (h hinted, err error) {
		// Where its Podman mounts images.
		cmd := exec.CommandContext(t.Context(), "nsenter", "--target", strconv.Itoa(e.Holder.PID), "--mount", "--", whittle, "oracle", "build-hints",
			"--podman", e.Socket(), "--docker", e.Socket()+".none", "--json", name)
		cmd.Env = append(os.Environ(), e.Environ()...)
		var talk bytes.Buffer
		cmd.Stderr = &talk
		text, err := cmd.Output()
		if err != nil {
			return h, errors.New(talk.String())
		}
		return h, json.Unmarshal(text, &h)
	}
	for _, name := range []string{"localhost/hints:1", "twin"} {
		h, err := hints(name)
		if err != nil || h.Facts.Path != "/srv/web" || h.Facts.Distro != "tiny" || h.Name != name {
			t.Errorf("of %s: %+v, %v", name, h.Facts, err)
		}
	}
	if _, err := hints("localhost/other:1"); err == nil || !strings.Contains(err.Error(), "hint:") {
		t.Errorf("of an unknown image: %v", err)
	}
	if left, err := e.Run(t.Context(), "image", "mount"); err != nil || left != "" {
		t.Errorf("still mounted: %q, %v", left, err)
	}
}
