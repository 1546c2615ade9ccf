// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/workload"
)

// ImageFacts is what is known of an image without running it. What is not known is zero.
type ImageFacts struct {
	Path        string   // of the program
	Entrypoint  []string // the whole argument vector
	Interpreter string   // PT_INTERP
	Static      bool
	Go          bool     // has Go's build info
	Rust        bool     // has Rust's symbols or panic strings
	Needs       []string // DT_NEEDED
	Libc        string   // "glibc 2.36", "musl", ""
	Scripts     []string // interpreters found: "python3", "node", "php", "perl", "ruby" …
	Distro      string   // ID of os-release: "debian", "alpine" …
	HasValgrind bool
}

// Hint is one kind of oracle, and whether it suits the image.
type Hint struct {
	Kind     Kind     `json:"kind,omitempty"` // "" for a remark
	Strength Strength `json:"strength"`
	Applies  bool     `json:"applies"`
	Why      string   `json:"why"`
	Run      []string `json:"run,omitempty"` // commands, or lines of a Dockerfile
}

// Hints for an image: the kinds that apply, the strongest first, then those that do not, then remarks.
func Hints(f ImageFacts) []Hint {
	hints := []Hint{f.sanitizer(), f.valgrind(), f.python(), f.node(), f.php(), f.hardened()}
	slices.SortStableFunc(hints, func(a, b Hint) int {
		if a.Applies != b.Applies {
			if a.Applies {
				return -1
			}
			return 1
		}
		return int(b.Strength - a.Strength)
	})
	return append(hints, f.remarks()...)
}

// script is the interpreter that the entrypoint starts, "" when it is a program by itself.
func (f ImageFacts) script(names ...string) bool {
	words := append([]string{f.Path}, f.Entrypoint...)
	for _, name := range names {
		for _, word := range words[:min(len(words), 8)] {
			if base := path.Base(word); base == name || strings.HasPrefix(base, name) && version(base[len(name):]) {
				return true
			}
		}
		if slices.ContainsFunc(f.Scripts, func(s string) bool {
			base := path.Base(s)
			return base == name || strings.HasPrefix(base, name) && version(base[len(name):])
		}) {
			return true
		}
	}
	return false
}

// version is what may follow an interpreter's name: "3", "3.11".
func version(s string) bool { return strings.Trim(s, "0123456789.-") == "" }

func (f ImageFacts) sanitizer() Hint {
	h := Hint{Kind: Sanitizer, Strength: Sanitizer.Strength(), Applies: true}
	sanitized := slices.ContainsFunc(f.Needs, OwnCall)
	switch {
	case sanitized:
		h.Why = "the image is built with a sanitizer: it can be the oracle of one that is not"
	case f.Go:
		h.Applies = false
		h.Why = "Go is memory-safe: a sanitizer finds what cgo does, at most (go build -asan)"
	case f.Rust:
		h.Why = "for unsafe code and C libraries in it"
		h.Run = []string{"RUSTFLAGS=-Zsanitizer=address cargo +nightly build --target x86_64-unknown-linux-gnu"}
	case f.Libc == "musl":
		h.Why = "gcc has no AddressSanitizer for musl; build the same service on a glibc distribution"
		h.Run = debianBuild("PACKAGE")
	case f.script("python", "node", "php", "perl", "ruby"):
		h.Why = "finds faults of the interpreter and its native modules, and not what a script does"
		h.Run = debianBuild("PACKAGE")
	default:
		h.Why = "an attack that corrupts memory aborts before it gets to make its call"
		h.Run = debianBuild("PACKAGE")
	}
	return h
}

// debianBuild is how a package of the distribution is built with AddressSanitizer.
func debianBuild(name string) []string {
	return []string{
		"FROM debian:12 AS build",
		"RUN sed -i 's/^Types: deb$/Types: deb deb-src/' /etc/apt/sources.list.d/debian.sources && apt-get update",
		"RUN apt-get build-dep -y " + name,
		"ENV DEB_CFLAGS_APPEND=\"-fsanitize=address -fno-omit-frame-pointer\" DEB_CXXFLAGS_APPEND=\"-fsanitize=address -fno-omit-frame-pointer\"",
		"ENV DEB_LDFLAGS_APPEND=-fsanitize=address DEB_BUILD_OPTIONS=\"nocheck nostrip\" ASAN_OPTIONS=detect_leaks=0",
		"RUN apt-get source -b " + name,
		"FROM PRODUCTION-IMAGE",
		"COPY --from=build /*.deb /tmp/",
		"RUN apt-get update && apt-get install -y libasan8 /tmp/*.deb && rm /tmp/*.deb",
	}
}

func (f ImageFacts) valgrind() Hint {
	h := Hint{Kind: Valgrind, Strength: Valgrind.Strength(), Applies: true}
	switch {
	case f.Go:
		h.Applies, h.Why = false, "valgrind does not know how Go's goroutines and memory work"
		return h
	case f.Static:
		h.Applies, h.Why = false, "in a static program valgrind cannot replace malloc, and sees no fault of the heap"
		return h
	}
	h.Why = "no source is needed; 10 to 50 times slower, sees the heap but not the stack; its own calls cannot be told from the service's"
	if f.HasValgrind {
		return h
	}
	switch f.Distro {
	case "alpine":
		h.Run = []string{"RUN apk add --no-cache valgrind musl-dbg"}
	case "fedora", "rhel", "centos", "rocky", "almalinux":
		h.Run = []string{"RUN dnf install -y valgrind"}
	default:
		h.Run = []string{"RUN apt-get update && apt-get install -y valgrind libc6-dbg"}
	}
	h.Run = append([]string{"FROM PRODUCTION-IMAGE"}, h.Run...)
	h.Why += "; it has to be in the image"
	return h
}

func (f ImageFacts) python() Hint {
	h := Hint{Kind: AuditPython, Strength: AuditPython.Strength(), Applies: f.script("python", "gunicorn", "uwsgi", "flask", "uvicorn", "celery")}
	h.Why = "no Python was found"
	if h.Applies {
		h.Why = "sees injected Python code that starts programs or connects (3.8 and later, without -I, -E or -S); not a call " +
			"that code of the image makes for the intruder, as with os.system and a bad argument"
	}
	return h
}

func (f ImageFacts) node() Hint {
	h := Hint{Kind: AuditNode, Strength: AuditNode.Strength(), Applies: f.script("node", "nodejs", "npm", "yarn")}
	h.Why = "no Node was found"
	if h.Applies {
		h.Why = "sees injected JavaScript that starts programs or connects (Node 16 and later); not what it leaves to a timer"
	}
	return h
}

func (f ImageFacts) php() Hint {
	h := Hint{Kind: AuditPHP, Strength: AuditPHP.Strength(), Applies: f.script("php", "php-fpm", "php-cgi", "apache2-foreground")}
	h.Why = "no PHP was found"
	if h.Applies {
		h.Why = "sees every call that starts a program, sends mail or loads foreign code (8.0 and later, without -n), the service's own, too: " +
			"what it needs is left to it by --env " + PHPLeave + "=mail,exec; not what PHP's extensions do by themselves"
	}
	return h
}

func (f ImageFacts) hardened() Hint {
	h := Hint{Kind: Hardened, Strength: Hardened.Strength()}
	switch {
	case f.Static:
		h.Why = "nothing can be preloaded into a static program"
	case f.Go:
		h.Why = "Go does not use the C library's allocator"
	case f.Libc == "musl":
		h.Why = "musl's allocator has no such checks, and the library is not there: the service would not start"
	case !glibcHas(f.Libc, 2, 26):
		h.Why = "the C library is not glibc 2.26 or later: " + workload.Printable(f.Libc, 32)
	default:
		h.Applies = true
		h.Why = "finds some faults of the heap, and late: what was learned is vouched for by little"
	}
	return h
}

// glibcHas reads "glibc 2.36". What is not known may be any: the hint is for a person, who sees what it leads to.
func glibcHas(libc string, major, minor int) bool {
	text, ok := strings.CutPrefix(libc, "glibc ")
	if !ok {
		return libc == ""
	}
	a, b, _ := strings.Cut(text, ".")
	gotMajor, err := strconv.Atoi(a)
	if err != nil {
		return false
	}
	gotMinor, err := strconv.Atoi(b)
	return err == nil && (gotMajor > major || gotMajor == major && gotMinor >= minor)
}

func (f ImageFacts) remarks() (out []Hint) {
	if f.Go {
		out = append(out, Hint{Why: "for Go the panel of judges and learning from a test's load do more than an oracle could"})
	}
	if len(f.Entrypoint) > 0 && strings.HasSuffix(f.Entrypoint[0], ".sh") {
		out = append(out, Hint{Why: fmt.Sprintf("%s is a script that starts the service: what was found of the program it ends in counts",
			workload.Printable(f.Entrypoint[0], 64))})
	}
	return out
}
