// SPDX-License-Identifier: Apache-2.0

package whittle_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
)

var osRoot = os.DirFS(".")

func TestMain(m *testing.M) { testenv.Main(m) }

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := fs.ReadFile(osRoot, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// script says whether a file is run by a shell: by its name, or by its first line.
func script(name, text string) bool {
	first, _, _ := strings.Cut(text, "\n")
	return path.Ext(name) == ".sh" || strings.HasPrefix(first, "#!") && strings.Contains(first, "sh")
}

var generatedLine = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// generated says whether a Go file says in its first line that it is; elsewhere the statement does not count.
func generated(text string) bool {
	at := generatedLine.FindStringIndex(text)
	return at != nil && at[0] == 0
}

func TestSourcesCarryTheirLicence(t *testing.T) {
	const apache, dual = "Apache-2.0", "GPL-2.0-only OR Apache-2.0"
	for _, name := range tree(t) {
		if strings.Contains(name, "testdata/") {
			continue
		}
		text := read(t, name)
		want := apache
		switch ext := path.Ext(name); {
		case ext == ".go" && generated(text):
			continue // its generator writes the header
		case ext == ".go" && generatedLine.MatchString(text):
			t.Errorf("%s: a generated file says so in line 1", name)
		case (ext == ".c" || ext == ".h") && strings.HasPrefix(name, "bpf/"):
			want = dual // the kernel gives its GPL-only helpers only to programs that it can call GPL
		case ext == ".go", ext == ".c", ext == ".h", ext == ".S", script(name, text), name == "Makefile":
		default:
			continue
		}
		lines := strings.SplitN(text, "\n", 4)
		if !slices.ContainsFunc(lines[:min(3, len(lines))], func(line string) bool {
			_, got, ok := strings.Cut(line, "SPDX-License-Identifier: ")
			return ok && strings.TrimSuffix(strings.TrimSpace(got), " */") == want
		}) {
			t.Errorf("%s: no SPDX-License-Identifier: %s in its first lines", name, want)
		}
	}
}

func TestLicenceTexts(t *testing.T) {
	if read(t, "LICENSE") != read(t, "LICENSES/Apache-2.0.txt") {
		t.Error("LICENSE and LICENSES/Apache-2.0.txt differ")
	}
	for name, want := range map[string]string{
		"LICENSE":                   "Version 2.0, January 2004",
		"LICENSES/GPL-2.0-only.txt": "Version 2, June 1991",
	} {
		if !strings.Contains(read(t, name), want) {
			t.Errorf("%s is not the licence that it should be: no %q", name, want)
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	const most = 700
	for _, name := range tree(t) {
		if ext := path.Ext(name); ext != ".go" && ext != ".c" && ext != ".h" || strings.Contains(name, "testdata/") {
			continue
		}
		text := read(t, name)
		if lines := strings.Count(text, "\n"); lines > most && !generated(text) {
			t.Errorf("%s has %d lines, more than %d: it has more than one subject", name, lines, most)
		}
	}
}

// Paths of the machine that a file was written on; matched where a path can begin.
var machinePath = regexp.MustCompile(`(^|[\s"'=(:])(/work/|/home/[a-z]|/Users/|/tmp/preamble)`)

func TestNoPathsOfOneMachine(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tree(t) {
		if name == "repo_test.go" || strings.HasPrefix(name, "LICENSE") {
			continue
		}
		text := read(t, name)
		if bytes.IndexByte([]byte(text), 0) >= 0 { // objects and archives: only this checkout's own path
			if len(here) > len("/tmp") && strings.Contains(text, here+"/") {
				t.Errorf("%s holds the path of this checkout, %s", name, here)
			}
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			if len(line) > 1<<16 { // a recorded trace
				continue
			}
			if found := machinePath.FindString(line); found != "" {
				t.Errorf("%s:%d: %s is a path of one machine", name, i+1, strings.TrimSpace(found))
			}
		}
	}
}

var todo = regexp.MustCompile(`\bTODO\b(\([a-z0-9-]+\))?`)

func TestTodosAreKnownLimits(t *testing.T) {
	limits := read(t, "docs/limits.md")
	for _, name := range tree(t) {
		if !slices.Contains([]string{".go", ".c", ".h", ".sh"}, path.Ext(name)) || name == "repo_test.go" {
			continue
		}
		for i, line := range strings.Split(read(t, name), "\n") {
			mark := todo.FindString(strings.ReplaceAll(line, "context.TODO", ""))
			if mark == "" || mark != "TODO" && strings.Contains(limits, mark) {
				continue
			}
			t.Errorf("%s:%d: a TODO is written TODO(key), and docs/limits.md has a line with it that says what does not work", name, i+1)
		}
	}
}

// testenv knows how to skip so that CI notices; t.Skip in a test does not.
func TestOnlyTestenvSkips(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.test && f.dir() != "internal/engine/enginetest" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
				if x, ok := s.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) {
					t.Errorf("%s: %s.%s: say what the test needs with internal/testenv", f.path, x.Name, s.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestGoVersion(t *testing.T) {
	mod := read(t, "go.mod")
	if !regexp.MustCompile(`(?m)^go 1\.26(\.\d+)?$`).MatchString(mod) {
		t.Error("go.mod does not ask for Go 1.26, which CONTRIBUTING.md and .ci/run promise")
	}
	for _, line := range []string{"toolchain ", "replace "} {
		if strings.Contains(mod, "\n"+line) {
			t.Errorf("go.mod has a %sline: `go install` from elsewhere would not see it", line)
		}
	}
}

var target = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):([^=].*)?$`)

func makeTargets(t *testing.T) map[string]bool {
	t.Helper()
	out := make(map[string]bool)
	for _, match := range target.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		out[match[1]] = true
	}
	return out
}

func TestMakeHelpListsEveryTarget(t *testing.T) {
	testenv.NeedTool(t, "make")
	help := command(t, "make", "-s", "help")
	for name := range makeTargets(t) {
		if !regexp.MustCompile(`(?m)^ +` + name + ` +\S`).MatchString(help) {
			t.Errorf("make help does not list %s:\n%s", name, help)
		}
	}
	for _, name := range []string{"build", "test", "check", "fuzz", "bench", "demo", "deps", "generate", "clean"} {
		if !makeTargets(t)[name] {
			t.Errorf("the Makefile has no target %s", name)
		}
	}
}

func TestFuzzRunsEveryTarget(t *testing.T) {
	var want []string
	for _, f := range goFiles(t) {
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && f.test && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") && fn.Type.Params.NumFields() == 1 {
				want = append(want, fmt.Sprintf("./%s %s", f.dir(), fn.Name.Name))
			}
		}
	}
	got := strings.FieldsFunc(command(t, "scripts/fuzz", "-list"), func(r rune) bool { return r == '\n' })
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("make fuzz runs\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestShellScripts(t *testing.T) {
	var scripts []string
	for _, name := range tree(t) {
		if strings.Contains(name, "testdata/") || !script(name, read(t, name)) {
			continue
		}
		info, err := fs.Stat(osRoot, name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&0o111 == 0 {
			t.Errorf("%s is not executable", name)
		}
		if out, err := exec.Command("bash", "-n", name).CombinedOutput(); err != nil {
			t.Errorf("bash -n %s: %v\n%s", name, err, out)
		}
		scripts = append(scripts, name)
	}
	for _, name := range []string{".ci/run", "scripts/deps"} {
		if !slices.Contains(scripts, name) {
			t.Errorf("%s was not found", name)
		}
	}
	t.Run("shellcheck", func(t *testing.T) {
		testenv.NeedTool(t, "shellcheck")
		command(t, "shellcheck", append([]string{"-x"}, scripts...)...)
	})
}

// documents that a reader is told to find.
var documents = []string{
	"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/limits.md", "docs/formats.md",
	"docs/benchmarks.md", "docs/decisions/README.md",
}

func TestDocuments(t *testing.T) {
	for _, name := range documents {
		if info, err := fs.Stat(osRoot, name); err != nil || info.Size() == 0 {
			t.Errorf("%s is missing or empty (%v)", name, err)
		}
	}
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	makes := regexp.MustCompile("(?:`|^\\s*|sudo )make ([a-z][a-z-]+)(?:`|$|\\s{2})")
	targets := makeTargets(t)
	for _, name := range tree(t) {
		if path.Ext(name) != ".md" || strings.Contains(name, "testdata/") {
			continue
		}
		text := read(t, name)
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(match[1], "://") || strings.HasPrefix(match[1], "mailto:") {
				continue
			}
			if _, err := fs.Stat(osRoot, path.Join(path.Dir(name), match[1])); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s links to %s, which is not there", name, match[1])
			}
		}
		for line := range strings.Lines(text) {
			for _, match := range makes.FindAllStringSubmatch(strings.TrimRight(line, "\n"), -1) {
				if !targets[match[1]] {
					t.Errorf("%s says `make %s`, which the Makefile does not have", name, match[1])
				}
			}
		}
	}
}

func TestReadmeSaysHowToStart(t *testing.T) {
	readme := read(t, "README.md")
	for _, want := range []string{"sudo make demo", "sudo make test"} {
		if !strings.Contains(readme, want) {
			t.Errorf("README.md does not say `%s`", want)
		}
	}
	if !strings.Contains(read(t, ".ci/run"), "make test") {
		t.Error(".ci/run does not run the README's test command")
	}
}

func TestArchitectureNamesEveryPackage(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	seen := make(map[string]bool)
	for _, f := range goFiles(t) {
		dir := f.dir()
		if seen[dir] || !strings.HasPrefix(dir, "internal/") || generator(dir) {
			continue
		}
		seen[dir] = true
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(path.Base(dir)) + `\b`).MatchString(text) {
			t.Errorf("ARCHITECTURE.md does not name %s", dir)
		}
	}
}

// The version is given by the Makefile; everything else must come from the sources, wherever they lie.
func TestBuildIsReproducible(t *testing.T) {
	testenv.NeedTool(t, "make", "tar")
	copied := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Mkdir(copied, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "bash", "-c", `set -o pipefail; tar -cf - --exclude=./.git --exclude=./bin --exclude=./.cache . | tar -xf - -C "$1"`, "-", copied)
	var built [2][]byte
	for i, dir := range []string{".", copied} {
		bin := t.TempDir()
		command(t, "make", "-s", "-C", dir, "build", "BIN="+bin, "VERSION=v0.0.0-test")
		data, err := os.ReadFile(filepath.Join(bin, "whittle"))
		if err != nil {
			t.Fatal(err)
		}
		built[i] = data
	}
	if !bytes.Equal(built[0], built[1]) {
		t.Error("two builds of the same sources in two places differ")
	}
	if !bytes.Contains(built[0], []byte("v0.0.0-test")) {
		t.Error("the binary does not hold the version that it was given: is main.version still there?")
	}
}

// command runs a program in the root of the repository and returns what it printed; it must succeed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	// Not the outer make's flags and job server.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "MAKEFLAGS=") || strings.HasPrefix(kv, "MAKELEVEL=") || strings.HasPrefix(kv, "MFLAGS=")
	}), "LC_ALL=C.UTF-8")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}
