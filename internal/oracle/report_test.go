// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden file")

// What the runtimes wrote here, and what is read from it. The samples are of gcc 12's libasan and libubsan, valgrind 3.19,
// glibc 2.36 and our own hooks.
func TestReadReport(t *testing.T) {
	files, err := filepath.Glob("testdata/reports/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no samples", err)
	}
	got := map[string]Report{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		report, err := ReadReport(name, bytes.NewReader(data))
		nothing := strings.Contains(name, "nothing") || strings.Contains(name, "empty")
		if nothing != errors.Is(err, ErrNothing) || err != nil && !nothing {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
		if nothing {
			continue
		}
		report.Text, _, _ = strings.Cut(report.Text, "\n") // the sample has the rest
		got[name] = report
	}
	data, err := json.MarshalIndent(got, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/reports.json"
	if *update {
		if err := os.WriteFile(golden, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(data)+"\n"); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
}

// A container writes what it likes.
func FuzzReadReport(f *testing.F) {
	files, _ := filepath.Glob("testdata/reports/*")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(filepath.Base(file), data)
	}
	f.Add("report.99999999999999999999", []byte(`{"whittle":"audit-node","frames":["\u001b[2J"],"pid":-7}`))
	f.Add("", bytes.Repeat([]byte("==1== "), 20000))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		r, err := ReadReport(name, bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, ErrNothing) {
				t.Errorf("error %v", err)
			}
			return
		}
		if r.Kind == "" || r.PID < 0 || len(r.Text) > maxLines*(maxLine+1) {
			t.Errorf("%+v", r)
		}
		for _, s := range []string{r.Kind, r.Summary, r.Location, strings.ReplaceAll(r.Text, "\n", "")} {
			if i := strings.IndexFunc(s, func(c rune) bool { return c < 0x20 || c > 0x7e }); i >= 0 {
				t.Errorf("%q is not printable at %d", s, i)
			}
		}
	})
}

func TestOwnCall(t *testing.T) {
	for path, want := range map[string]bool{
		"/usr/lib/x86_64-linux-gnu/libasan.so.8.0.0":                    true,
		"/usr/lib/gcc/x86_64-linux-gnu/12/libubsan.so.1":                true,
		"/usr/lib/llvm-14/lib/clang/14/lib/linux/libclang_rt.asan-x.so": true,
		"/usr/lib/x86_64-linux-gnu/libc_malloc_debug.so.0":              true,
		"/usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so":       true,
		// It makes every call of the service.
		"/usr/libexec/valgrind/memcheck-amd64-linux": false,
		"/usr/lib/x86_64-linux-gnu/libc.so.6":        false,
		"/srv/libasan.so/service":                    false,
		"":                                           false,
	} {
		if got := OwnCall(path); got != want {
			t.Errorf("OwnCall(%q) = %v, want %v", path, got, want)
		}
	}
}
