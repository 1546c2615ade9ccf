// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

//go:embed hooks/sitecustomize.py
var pythonHook []byte

//go:embed hooks/node.js
var nodeHook []byte

// Changes turn production into the twin. dir is a directory of the host for this one container: "reports" in it is mounted at
// ReportDir and has to be writable for everybody (mode 1777), as reports are written with whatever rights the service has
// by then; "hooks" is mounted read-only. What is found in "reports" was written by the container: it is to be opened
// without following links, and read with ReadReport.
func (s Spec) Changes(p Production, dir string) (Start, error) {
	if err := s.Validate(); err != nil {
		return Start{}, fmt.Errorf("make an oracle: %w", err)
	}
	start := Start{Image: s.Image, Command: s.Command, Env: maps.Clone(s.Env)}
	if len(s.Entrypoint) > 0 {
		start.Entrypoint = &s.Entrypoint
	}
	if start.Env == nil {
		start.Env = map[string]string{}
	}
	start.Mounts = []Mount{{Source: path.Join(dir, "reports"), Destination: ReportDir}}
	env := environment{before: p.Env, now: start.Env}
	switch s.Kind {
	case Sanitizer:
		sanitize(env)
	case Valgrind:
		if err := wrap(&start, s, p); err != nil {
			return Start{}, fmt.Errorf("make an oracle: %w", err)
		}
	case Hardened:
		harden(env, s.Preload)
	case AuditPython:
		start.Env["PYTHONPATH"] = joined(":", HookDir, env.get("PYTHONPATH"))
		start.Env["WHITTLE_REPORTS"] = ReportDir
		start.hook(dir, File{"sitecustomize.py", pythonHook})
	case AuditNode:
		start.Env["NODE_OPTIONS"] = joined(" ", "--require="+HookDir+"/whittle-audit.js", env.get("NODE_OPTIONS"))
		start.Env["WHITTLE_REPORTS"] = ReportDir
		start.hook(dir, File{"whittle-audit.js", nodeHook})
	case AuditPHP:
		auditPHP(&start, env, s.phpLeft(), dir)
	}
	return start, nil
}

// Variables of a list as engines have it, NAME=VALUE.
func Variables(list []string) map[string]string {
	out := make(map[string]string, len(list))
	for _, v := range list {
		if name, value, ok := strings.Cut(v, "="); ok {
			out[name] = value
		}
	}
	return out
}

// environment of the twin: what is set for it now, else what production has.
type environment struct{ before, now map[string]string }

func (e environment) get(name string) string {
	if v, ok := e.now[name]; ok {
		return v
	}
	return e.before[name]
}

// hook is what HookDir has.
func (s *Start) hook(dir string, files ...File) {
	for _, f := range files {
		s.Files = append(s.Files, File{Name: "hooks/" + f.Name, Content: f.Content})
	}
	s.Mounts = append(s.Mounts, Mount{Source: path.Join(dir, "hooks"), Destination: HookDir, ReadOnly: true})
}

// Options of the sanitizers' runtimes, each with its reason. What a person set in the same variable wins.
var asanOptions = []option{
	{"abort_on_error", "0"},            // ends with the exit code and not with SIGABRT
	{"handle_segv", "2"},               // not for the service to handle: Redis would, and no report would be left
	{"handle_sigbus", "2"},             //
	{"handle_sigill", "1"},             // a jump into data
	{"handle_abort", "1"},              // the C library's own checks, and assertions
	{"disable_coredump", "1"},          // the shadow would make it terabytes
	{"symbolize", "0"},                 // a symbolizer is another program that would be executed
	{"detect_leaks", "0"},              // a leak is no attack, and looking for one ptraces
	{"halt_on_error", "1"},             // where it was built to recover
	{"allocator_may_return_null", "1"}, // as the C library's does
}

var ubsanOptions = []option{
	{"halt_on_error", "1"},
	{"abort_on_error", "0"},
	{"print_stacktrace", "1"},
	{"symbolize", "0"},
}

func sanitize(env environment) {
	// These two are how an abort is seen: nobody sets them otherwise.
	ours := []option{{"log_path", ReportDir + "/report"}, {"exitcode", fmt.Sprint(AbortCode)}}
	for name, defaults := range map[string][]option{"ASAN_OPTIONS": asanOptions, "UBSAN_OPTIONS": ubsanOptions} {
		env.now[name] = mergeOptions(defaults, env.get(name), ours)
	}
}

// wrap runs the twin under memcheck. Undefined values are left out: services read padding, and it would be reported as
// an attack; what remains are accesses outside of what is allocated. vgdb would make files in /tmp.
func wrap(start *Start, s Spec, p Production) error {
	argv := slices.Concat(s.Entrypoint, s.Command)
	if len(s.Entrypoint) == 0 && len(s.Command) == 0 {
		argv = p.Argv
	}
	if len(argv) == 0 || argv[0] == "" {
		return errors.New("valgrind needs the whole command, and it is not known")
	}
	if strings.HasPrefix(argv[0], "-") {
		return errors.New("valgrind takes a program that begins with a dash for an option of its own")
	}
	start.Entrypoint = &[]string{
		"valgrind", "--tool=memcheck", "--quiet", fmt.Sprintf("--error-exitcode=%d", AbortCode),
		"--exit-on-first-error=yes", "--trace-children=yes", "--undef-value-errors=no", "--leak-check=no", "--vgdb=no",
		"--log-file=" + ReportDir + "/report.%p",
	}
	start.Command = argv
	return nil
}

// harden the allocator. Since glibc 2.34 its checks are in a library of their own; older ones say that they cannot preload
// it, and go on.
func harden(env environment, preload string) {
	if preload == "" {
		preload = "libc_malloc_debug.so.0"
		env.now["GLIBC_TUNABLES"] = mergeOptions(nil, env.get("GLIBC_TUNABLES"), []option{{"glibc.malloc.check", "3"}})
	}
	env.now["LD_PRELOAD"] = joined(":", preload, env.get("LD_PRELOAD"))
	if env.get("MALLOC_PERTURB_") == "" {
		env.now["MALLOC_PERTURB_"] = "165"
	}
}

// joined leaves out what is empty: an empty element of PYTHONPATH would be the current directory.
func joined(by, first, rest string) string {
	if rest == "" {
		return first
	}
	return first + by + rest
}

type option struct{ key, value string }

// mergeOptions gives "key=value" lists as the sanitizers and glibc read them: defaults that were not set, what was set but for
// what is forced, then what is forced.
func mergeOptions(defaults []option, set string, forced []option) string {
	user := splitOptions(set)
	has := func(list []option, key string) bool {
		return slices.ContainsFunc(list, func(o option) bool { return o.key == key })
	}
	var out []string
	add := func(o option) { out = append(out, o.key+"="+o.value) }
	for _, o := range defaults {
		if !has(user, o.key) && !has(forced, o.key) {
			add(o)
		}
	}
	for _, o := range user {
		if !has(forced, o.key) {
			add(o)
		}
	}
	for _, o := range forced {
		add(o)
	}
	return strings.Join(out, ":")
}

// splitOptions reads such a list: separated by blanks, commas or colons, values may be quoted. What has no "=" is dropped: the
// runtimes would end at it.
func splitOptions(s string) (out []option) {
	for s = strings.TrimLeft(s, optionBlanks); s != ""; s = strings.TrimLeft(s, optionBlanks) {
		key, rest, ok := strings.Cut(s, "=")
		if end := strings.IndexAny(key, optionBlanks); !ok || end >= 0 {
			if end < 0 {
				return out
			}
			s = s[end:]
			continue
		}
		end := strings.IndexAny(rest, optionBlanks)
		if rest != "" && (rest[0] == '\'' || rest[0] == '"') {
			quoted := strings.IndexByte(rest[1:], rest[0])
			if quoted < 0 {
				return out // it would swallow what follows, ours included
			}
			end = quoted + 2
		}
		if end < 0 {
			end = len(rest)
		}
		out = append(out, option{key, rest[:end]})
		s = rest[end:]
	}
	return out
}

const optionBlanks = " ,:\n\t\r"
