// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// mapsOf a program that shows its own.
func mapsOf(t *testing.T, env []string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestArmed(t *testing.T) {
	testenv.NeedGCC(t)
	dir := t.TempDir()
	source := filepath.Join(dir, "show.c")
	err := os.WriteFile(source, []byte(`#include <stdio.h>
int main(void) { FILE *f = fopen("/proc/self/maps", "r"); for (int c; (c = getc(f)) != EOF;) putchar(c); return fclose(f); }
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	build := func(name string, flags ...string) string {
		program := filepath.Join(dir, name)
		if out, err := exec.Command("gcc", append(flags, "-o", program, source)...).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
		return program
	}
	plain := build("plain")
	maps := map[string]string{
		"plain":    mapsOf(t, nil, plain),
		"asan":     mapsOf(t, nil, build("asan", "-fsanitize=address")),
		"static":   mapsOf(t, nil, build("static", "-fsanitize=address", "-static-libasan")),
		"hardened": mapsOf(t, []string{"LD_PRELOAD=libc_malloc_debug.so.0"}, plain),
	}
	for _, tc := range []struct {
		kind Kind
		maps string
		want bool
	}{
		{Sanitizer, "plain", false}, {Sanitizer, "asan", true}, {Sanitizer, "static", true}, {Sanitizer, "hardened", false},
		{Valgrind, "plain", false}, {Valgrind, "asan", false},
		{Hardened, "plain", false}, {Hardened, "hardened", true},
		{AuditPython, "asan", false}, {AuditPHP, "asan", false}, {"", "asan", false},
	} {
		if err := (Spec{Kind: tc.kind}).Armed(strings.NewReader(maps[tc.maps]), []string{"report.1"}); (err == nil) != tc.want {
			t.Errorf("%s of %s: %v, want %v\n%s", tc.kind, tc.maps, err, tc.want, maps[tc.maps])
		}
	}
	preload := Spec{Kind: Hardened, Preload: "/lib/libc.so"}
	if err := preload.Armed(strings.NewReader(maps["plain"]), nil); err != nil {
		t.Error(err)
	}
	line := "38000000-38001000 r--p 00000000 08:01 1 /usr/libexec/valgrind/memcheck-amd64-linux\n"
	if err := (Spec{Kind: Valgrind}).Armed(strings.NewReader(line), nil); err != nil {
		t.Error(err)
	}
	if err := (Spec{Kind: AuditNode}).Armed(strings.NewReader(""), []string{"loaded.12"}); err != nil {
		t.Error(err)
	}
}
