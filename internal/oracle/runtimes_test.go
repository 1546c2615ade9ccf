// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
)

const faulty = `#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
	char *volatile heap = malloc(16), stack[16];
	free(heap);
	switch (argv[1][0]) {
	case 'h': heap[3] = 1; break;
	case 's': strcpy((char *volatile)stack, argv[1]); break;
	case 'f': free(heap); break;
	case 'n': *(volatile int *)8 = 1; break;
	default: return 0;
	}
	write(1, "PWNED\n", 6);
	return stack[0] == 7;
}
`

// The options that are set make the real runtimes end a process before it goes on, and leave a report that is understood.
func TestRuntimes(t *testing.T) {
	testenv.NeedGCC(t)
	testenv.NeedTool(t, "valgrind")
	dir := t.TempDir()
	source := filepath.Join(dir, "faulty.c")
	if err := os.WriteFile(source, []byte(faulty), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string][]string{"asan": {"-fsanitize=address"}, "plain": {"-fno-stack-protector"}} {
		args := append(flags, "-w", "-O0", "-U_FORTIFY_SOURCE", "-o", filepath.Join(dir, name), source)
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
	}
	for _, tc := range []struct {
		name, program, argument string
		spec                    Spec
		want                    string // of the summary; "": it serves
		code                    int
	}{
		{"sanitizer heap", "asan", "h", Spec{Kind: Sanitizer, Image: "x"}, "asan: heap-use-after-free", AbortCode},
		{"sanitizer stack", "asan", "s" + strings.Repeat("A", 40), Spec{Kind: Sanitizer, Image: "x"}, "asan: stack-buffer-overflow", AbortCode},
		{"sanitizer free", "asan", "f", Spec{Kind: Sanitizer, Image: "x"}, "asan: attempting double-free", AbortCode},
		{"sanitizer null", "asan", "n", Spec{Kind: Sanitizer, Image: "x"}, "asan: SEGV, WRITE memory access", AbortCode},
		{"sanitizer nothing", "asan", "0", Spec{Kind: Sanitizer, Image: "x"}, "", 0},
		{"valgrind heap", "plain", "h", Spec{Kind: Valgrind}, "valgrind: Invalid write", AbortCode},
		{"valgrind free", "plain", "f", Spec{Kind: Valgrind}, "valgrind: Invalid free", AbortCode},
		{"valgrind null", "plain", "n", Spec{Kind: Valgrind}, "valgrind: Invalid write", AbortCode},
		{"valgrind nothing", "plain", "0", Spec{Kind: Valgrind}, "", 0},
		{"hardened free", "plain", "f", Spec{Kind: Hardened}, "glibc: free(): ", -1}, // SIGABRT
		{"hardened nothing", "plain", "0", Spec{Kind: Hardened}, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reports := t.TempDir()
			start, err := tc.spec.Changes(Production{Argv: []string{filepath.Join(dir, tc.program), tc.argument}}, "/unused")
			if err != nil {
				t.Fatal(err)
			}
			argv := []string{filepath.Join(dir, tc.program), tc.argument}
			if start.Entrypoint != nil {
				argv = append(*start.Entrypoint, start.Command...)
			}
			for i := range argv {
				argv[i] = strings.ReplaceAll(argv[i], ReportDir, reports)
			}
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Env = os.Environ()
			for name, value := range start.Env {
				cmd.Env = append(cmd.Env, name+"="+strings.ReplaceAll(value, ReportDir, reports))
			}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != tc.code || strings.Contains(string(out), "PWNED") {
				t.Errorf("exit code %d, want %d, output:\n%s", code, tc.code, out)
			}
			got := found(t, reports, string(out), tc.spec.Kind.Logs())
			if tc.want == "" && got != "" || tc.want != "" && !strings.HasPrefix(got, tc.want) {
				t.Errorf("reported %q, want %q", got, tc.want)
			}
		})
	}
}

// found is the kind and summary of the one report, in the log or the directory.
func found(t *testing.T, reports, log string, logs bool) (all string) {
	t.Helper()
	texts := map[string]string{}
	if logs {
		texts["log"] = log
	}
	files, err := filepath.Glob(filepath.Join(reports, "report.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(file)] = string(data)
	}
	for name, text := range texts {
		r, err := ReadReport(name, strings.NewReader(text))
		if err == nil {
			all += r.Kind + ": " + r.Summary
		} else if !errors.Is(err, ErrNothing) {
			t.Error(err)
		}
	}
	return all
}
