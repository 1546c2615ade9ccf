// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestChanges(t *testing.T) {
	production := Production{
		Image: "redis:7", Argv: []string{"redis-server", "--port", "1"},
		Env: map[string]string{
			"ASAN_OPTIONS": "handle_segv=1:log_path=/tmp/mine exitcode=3,suppressions='/a:b'", "PYTHONPATH": "/app", "NODE_OPTIONS": "--max-old-space-size=64",
			"LD_PRELOAD": "/lib/x.so", "GLIBC_TUNABLES": "glibc.malloc.check=0:glibc.malloc.arena_max=1",
		},
	}
	reports := Mount{Source: "/state/o1/reports", Destination: ReportDir}
	hooks := Mount{Source: "/state/o1/hooks", Destination: HookDir, ReadOnly: true}
	valgrind := []string{
		"valgrind", "--tool=memcheck", "--quiet", "--error-exitcode=66", "--exit-on-first-error=yes", "--trace-children=yes",
		"--undef-value-errors=no", "--leak-check=no", "--vgdb=no", "--log-file=/run/whittle-oracle/report.%p",
	}
	for _, tc := range []struct {
		name string
		spec Spec
		want Start
	}{
		{"sanitizer", Spec{Kind: Sanitizer, Image: "redis:7-asan"}, Start{
			Image: "redis:7-asan", Mounts: []Mount{reports},
			Env: map[string]string{
				"ASAN_OPTIONS": "abort_on_error=0:handle_sigbus=2:handle_sigill=1:handle_abort=1:disable_coredump=1:symbolize=0:" +
					"detect_leaks=0:halt_on_error=1:allocator_may_return_null=1:handle_segv=1:suppressions='/a:b':" +
					"log_path=/run/whittle-oracle/report:exitcode=66",
				"UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=0:print_stacktrace=1:symbolize=0:log_path=/run/whittle-oracle/report:exitcode=66",
			},
		}},
		{"valgrind", Spec{Kind: Valgrind}, Start{
			Entrypoint: &valgrind, Command: production.Argv, Mounts: []Mount{reports}, Env: map[string]string{},
		}},
		{"valgrind of another command", Spec{Kind: Valgrind, Entrypoint: []string{"/a"}, Command: []string{"b"}}, Start{
			Entrypoint: &valgrind, Command: []string{"/a", "b"}, Mounts: []Mount{reports}, Env: map[string]string{},
		}},
		{"hardened", Spec{Kind: Hardened}, Start{Mounts: []Mount{reports}, Env: map[string]string{
			"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.check=3", "LD_PRELOAD": "libc_malloc_debug.so.0:/lib/x.so", "MALLOC_PERTURB_": "165",
		}}},
		{"hardened by another allocator", Spec{Kind: Hardened, Preload: "/lib/h.so", Env: map[string]string{"LD_PRELOAD": "", "MALLOC_PERTURB_": "1"}}, Start{
			Mounts: []Mount{reports}, Env: map[string]string{"LD_PRELOAD": "/lib/h.so", "MALLOC_PERTURB_": "1"},
		}},
		{"python", Spec{Kind: AuditPython}, Start{
			Mounts: []Mount{reports, hooks}, Files: []File{{Name: "hooks/sitecustomize.py", Content: pythonHook}},
			Env: map[string]string{"PYTHONPATH": "/run/whittle-hooks:/app", "WHITTLE_REPORTS": "/run/whittle-oracle"},
		}},
		{"node", Spec{Kind: AuditNode, Env: map[string]string{"NODE_OPTIONS": ""}}, Start{
			Mounts: []Mount{reports, hooks}, Files: []File{{Name: "hooks/whittle-audit.js", Content: nodeHook}},
			Env: map[string]string{"NODE_OPTIONS": "--require=/run/whittle-hooks/whittle-audit.js", "WHITTLE_REPORTS": "/run/whittle-oracle"},
		}},
		{"php", Spec{Kind: AuditPHP, Env: map[string]string{"COLUMNS": "9", PHPLeave: "mail,FFI"}}, Start{
			Mounts: []Mount{reports, hooks}, Files: []File{{"hooks/audit.php", phpHook}, {"hooks/audit.ini", phpSettings([]string{"mail", "FFI"})}},
			Env: map[string]string{"PHP_INI_SCAN_DIR": ":/run/whittle-hooks", "COLUMNS": "9", "LINES": "50", PHPLeave: "mail,FFI"},
		}},
		{"php with settings of its own", Spec{Kind: AuditPHP, Env: map[string]string{"PHP_INI_SCAN_DIR": "/conf:"}}, Start{
			Mounts: []Mount{reports, hooks}, Files: []File{{"hooks/audit.php", phpHook}, {"hooks/audit.ini", phpSettings(nil)}},
			Env: map[string]string{"PHP_INI_SCAN_DIR": "/conf::/run/whittle-hooks", "COLUMNS": "80", "LINES": "50"},
		}},
		{"php without any", Spec{Kind: AuditPHP, Env: map[string]string{"PHP_INI_SCAN_DIR": ""}}, Start{
			Mounts: []Mount{reports, hooks}, Files: []File{{"hooks/audit.php", phpHook}, {"hooks/audit.ini", phpSettings(nil)}},
			Env: map[string]string{"PHP_INI_SCAN_DIR": "/run/whittle-hooks", "COLUMNS": "80", "LINES": "50"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			given := len(tc.spec.Env)
			got, err := tc.spec.Changes(production, "/state/o1")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(tc.spec.Env) != given {
				t.Errorf("the spec was changed: %v", tc.spec.Env)
			}
		})
	}
}

func TestSpecRefused(t *testing.T) {
	for name, spec := range map[string]Spec{
		"no kind":                        {},
		"another kind":                   {Kind: "magic\x1b"},
		"a sanitizer that is production": {Kind: Sanitizer},
		"a zero byte":                    {Kind: Hardened, Command: []string{"a\x00b"}},
		"an option for an image":         {Kind: Sanitizer, Image: "--privileged"},
		"no name of a variable":          {Kind: Hardened, Env: map[string]string{"A=B": "c"}},
		"an empty name":                  {Kind: Hardened, Env: map[string]string{"": "c"}},
		"too many words":                 {Kind: Hardened, Command: slices.Repeat([]string{"x"}, maxWords+1)},
		"too much text":                  {Kind: Hardened, Command: []string{strings.Repeat("x", maxText)}},
		"a preload of two":               {Kind: Hardened, Preload: "/a:/b"},
		"a preload in the way":           {Kind: Valgrind, Preload: "/a"},
		"backwards":                      {Kind: Valgrind, Quiet: -time.Second},
		"an unknown function of PHP":     {Kind: AuditPHP, Env: map[string]string{PHPLeave: "mail,exec\""}},
		"for ever":                       {Kind: Valgrind, Drain: maxWait + 1},
	} {
		if _, err := spec.Changes(Production{Argv: []string{"x"}}, "/d"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, argv := range [][]string{nil, {""}, {"--version"}} {
		if _, err := (Spec{Kind: Valgrind}).Changes(Production{Argv: argv}, "/d"); err == nil {
			t.Errorf("valgrind of %q: no error", argv)
		}
	}
}

func TestAborts(t *testing.T) {
	for code, want := range map[int]bool{0: false, 1: false, AbortCode: true, 128 + 6: true, 128 + 11: true, 128 + 9: false, 128 + 15: false} {
		if got := Sanitizer.Aborts(code); got != want {
			t.Errorf("a sanitizer's %d: %v, want %v", code, got, want)
		}
	}
	if Hardened.Aborts(AbortCode) {
		t.Error("no allocator ends with the sanitizers' code")
	}
}

// Whatever the options are, what an abort is seen by is ours, and said last.
func FuzzOptions(f *testing.F) {
	f.Add("a=b:log_path='/x:y'")
	f.Add(" , =:a=\"")
	f.Fuzz(func(t *testing.T, set string) {
		got := mergeOptions(asanOptions, set, []option{{"log_path", "/ours"}, {"exitcode", "66"}})
		if !strings.HasSuffix(got, "log_path=/ours:exitcode=66") {
			t.Errorf("%q became %q", set, got)
		}
		for _, o := range splitOptions(strings.TrimSuffix(got, "log_path=/ours:exitcode=66")) {
			if o.key == "log_path" || o.key == "exitcode" {
				t.Errorf("%q became %q, with another %s", set, got, o.key)
			}
		}
	})
}

func TestVariables(t *testing.T) {
	got := Variables([]string{"PYTHONPATH=/app", "A=b=c", "EMPTY=", "none", "A=last"})
	if diff := cmp.Diff(map[string]string{"PYTHONPATH": "/app", "A": "last", "EMPTY": ""}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	start, err := Spec{Kind: AuditPython}.Changes(Production{Env: got}, "/d")
	if want := HookDir + ":/app"; err != nil || start.Env["PYTHONPATH"] != want {
		t.Errorf("PYTHONPATH=%s, %v; want %s", start.Env["PYTHONPATH"], err, want)
	}
}

func TestAlike(t *testing.T) {
	for _, tt := range []struct {
		twin, production string
		want             bool
	}{
		{"/opt/asan/web", "/usr/bin/web", true},
		{"/usr/bin/redis-server-asan", "/usr/bin/redis-server", true},
		{"/usr/bin/asan-web", "/usr/bin/web", true},
		{"/usr/libexec/valgrind/memcheck-amd64-linux", "/usr/bin/web", true},
		{"/usr/bin/bash", "/bin/sh", false},
		{"/usr/bin/dash", "/usr/bin/ash", false},
		{"/usr/bin/cat", "/app/a", false},
		{"/usr/bin/webmail", "/usr/bin/web", false},
		{"/usr/bin/web", "?", false},
		{"", "", false},
	} {
		if got := Alike(tt.twin, tt.production); got != tt.want {
			t.Errorf("Alike(%q, %q) = %v", tt.twin, tt.production, got)
		}
	}
}

func TestHints(t *testing.T) {
	for _, tc := range []struct {
		name  string
		facts ImageFacts
		want  []Kind // that apply, in their order
		says  string
	}{
		{"C", ImageFacts{Path: "/usr/bin/redis-server", Libc: "glibc 2.36", Distro: "debian"}, []Kind{Sanitizer, Valgrind, Hardened}, "libc6-dbg"},
		{"an old glibc", ImageFacts{Path: "/a", Libc: "glibc 2.17"}, []Kind{Sanitizer, Valgrind}, "glibc 2.26"},
		{"musl", ImageFacts{Path: "/a", Libc: "musl", Distro: "alpine"}, []Kind{Sanitizer, Valgrind}, "no AddressSanitizer for musl"},
		{"static", ImageFacts{Path: "/a", Static: true}, []Kind{Sanitizer}, "preloaded into a static"},
		{"Go", ImageFacts{Path: "/a", Go: true, Static: true}, nil, "memory-safe"},
		{"Rust", ImageFacts{Path: "/a", Rust: true}, []Kind{Sanitizer, Valgrind, Hardened}, "unsafe code"},
		{"Flask", ImageFacts{Entrypoint: []string{"/usr/bin/python3.11", "app.py"}}, []Kind{Sanitizer, Valgrind, AuditPython, Hardened}, "3.8 and later"},
		{"Node", ImageFacts{Entrypoint: []string{"docker-entrypoint.sh", "node", "x.js"}, Scripts: []string{"/usr/bin/node"}},
			[]Kind{Sanitizer, Valgrind, AuditNode, Hardened}, "is a script that starts the service"},
		{"PHP", ImageFacts{Path: "/usr/sbin/php-fpm8.2", Libc: "glibc 2.36"}, []Kind{Sanitizer, Valgrind, AuditPHP, Hardened}, "WHITTLE_PHP_LEAVE"},
		{"sanitized", ImageFacts{Path: "/a", Needs: []string{"libasan.so.8", "libc.so.6"}}, []Kind{Sanitizer, Valgrind, Hardened}, "is built with a sanitizer"},
		{"nodes", ImageFacts{Path: "/usr/bin/node_exporter"}, []Kind{Sanitizer, Valgrind, Hardened}, "no Node"},
		{"nonsense", ImageFacts{Libc: "glibc x\x1b", Entrypoint: []string{""}}, []Kind{Sanitizer, Valgrind}, "glibc x?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []Kind
			var said []string
			for _, h := range Hints(tc.facts) {
				if h.Applies {
					got = append(got, h.Kind)
				}
				if h.Kind.Strength() != h.Strength || h.Why == "" {
					t.Errorf("%+v", h)
				}
				said = append(append(said, h.Why), h.Run...)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
			if !strings.Contains(strings.Join(said, "\n"), tc.says) {
				t.Errorf("nothing says %q:\n%s", tc.says, strings.Join(said, "\n"))
			}
		})
	}
}
