// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/oracle"
)

const (
	defaultPath  = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	maxShebang   = 512
	maxOSRelease = 64 << 10
	maxArgv      = 256 // words of a command that are looked at
)

// started is how a service is started.
type started struct {
	argv []string
	path string // PATH
	dir  string // working directory
}

// starters start the program that is meant: what follows them is looked at first.
var starters = []string{
	"tini", "dumb-init", "catatonit", "docker-init", "init", "env", "exec", "sh", "bash", "dash", "ash", "busybox", "gosu", "su-exec", "setpriv",
	"nice", "ionice", "chrt", "numactl", "setarch", "timeout", "stdbuf", "sudo", "runuser", "su", "s6-svscan",
}

// interpreters by what their executables' names begin with.
var interpreters = []struct {
	name  string
	match *regexp.Regexp
}{
	{"python3", regexp.MustCompile(`^(python(3(\.[0-9]+)?)?|pypy3?)$`)},
	{"node", regexp.MustCompile(`^(node|nodejs)$`)},
	{"php", regexp.MustCompile(`^php(-fpm|-cgi)?[0-9.]*$`)},
	{"perl", regexp.MustCompile(`^perl[0-9.]*$`)},
	{"ruby", regexp.MustCompile(`^ruby[0-9.]*$`)},
	{"java", regexp.MustCompile(`^java$`)},
}

func interpreterOf(name string) string {
	for _, i := range interpreters {
		if i.match.MatchString(path.Base(name)) {
			return i.name
		}
	}
	return ""
}

// facts of what is started in a root: of the first word that is a program and does not merely start another.
func (r imageRoot) facts(s started) (oracle.ImageFacts, error) {
	f := oracle.ImageFacts{Entrypoint: s.argv, Distro: r.distro()}
	if s.path == "" {
		s.path = defaultPath
	}
	_, f.HasValgrind = r.find("valgrind", s.path, "")
	program := r.program(s, &f)
	if program == "" {
		return f, hint.Add(errors.New("no program was found in what it starts: "+commandLine(s.argv[:min(len(s.argv), 8)])), "name the executable itself: whittle oracle build-hints /PATH")
	}
	f.Path = program
	file, size, err := r.open(program)
	if err != nil {
		return f, fmt.Errorf("read %s: %w", oneLine(program), err)
	}
	defer file.Close()
	if err := elfFacts(file, size, &f); err != nil {
		return f, fmt.Errorf("read %s: %w", oneLine(program), err)
	}
	f.Libc = r.libcOf(f)
	return f, nil
}

// program is the ELF file that a command line comes down to; the interpreters on the way are noted.
func (r imageRoot) program(s started, f *oracle.ImageFacts) (program string) {
	note := func(name string) {
		if i := interpreterOf(name); i != "" && !slices.Contains(f.Scripts, i) {
			f.Scripts = append(f.Scripts, i)
		}
	}
	for _, word := range s.argv[:min(len(s.argv), maxArgv)] {
		if strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
			continue
		}
		name, ok := r.find(word, s.path, s.dir)
		if !ok {
			continue
		}
		for range 4 { // a script's interpreter may be one, as in the kernel
			head := r.head(name, maxShebang)
			if bytes.HasPrefix(head, []byte("\x7fELF")) {
				note(name)
				if program == "" || slices.Contains(starters, path.Base(program)) {
					program = name
				}
				break
			}
			interpreter := shebang(head)
			if name, ok = r.find(interpreter, s.path, s.dir); !ok {
				note(interpreter)
				break
			}
		}
		if program != "" && !slices.Contains(starters, path.Base(program)) {
			return program
		}
	}
	return program
}

// shebang of a script: its interpreter, or what env starts.
func shebang(head []byte) string {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return ""
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) > 1 && path.Base(words[0]) == "env" {
		words = slices.DeleteFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, "-") || strings.Contains(w, "=") })
	}
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

var distroID = regexp.MustCompile(`(?m)^ID="?([a-z0-9._-]{1,40})"?$`)

// distro is ID of os-release(5).
func (r imageRoot) distro() string {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if m := distroID.FindSubmatch(r.head(name, maxOSRelease)); m != nil {
			return string(m[1])
		}
	}
	return ""
}
