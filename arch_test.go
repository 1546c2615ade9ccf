// SPDX-License-Identifier: Apache-2.0

// Package whittle_test holds what is true of the repository as a whole: which package may import which, which are
// pure, and what every file carries. It reads the tree in-process; only repo_test.go runs commands.
package whittle_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/whittle-sec/whittle"

// layers is the whole layering: package → what of this module its code may import (tests may import more). The flow
// is kernel → observe → learn → policy → filter, and nothing upstream imports anything downstream, with one exception:
// learn names what it proposes in policy's vocabulary. Mechanism (kernel, seccomp, engine, image) does not
// import policy; what does I/O is not imported by what judges.
var layers = map[string][]string{
	// Vocabulary.
	"internal/hint":     {},
	"internal/jsonedit": {},
	"internal/syscalls": {},
	"internal/workload": {},
	"internal/observe":  {"internal/syscalls", "internal/workload"},
	"internal/policy":   {"internal/syscalls", "internal/workload"},

	// Judgement.
	"internal/assoc":  {},
	"internal/learn":  {"internal/assoc", "internal/observe", "internal/policy", "internal/syscalls", "internal/workload"},
	"internal/cve":    {"internal/policy", "internal/syscalls"},
	"internal/filter": {"internal/policy", "internal/syscalls", "internal/workload"},
	"internal/plan":   {"internal/cve", "internal/filter", "internal/observe", "internal/policy", "internal/syscalls", "internal/workload"},

	// The panel: judge decides a case from plain values; the corpus has the rules it goes by.
	"internal/judge":    {"internal/cve", "internal/observe", "internal/plan", "internal/policy", "internal/syscalls", "internal/workload"},
	"internal/elfcalls": {"internal/syscalls"},
	"internal/corpus":   {"internal/assoc", "internal/hint", "internal/judge", "internal/observe", "internal/syscalls", "internal/workload"},

	// Mechanism.
	// What the kernel and the mapped files say of a held call, in the panel's words.
	"internal/origin":  {"internal/elfcalls", "internal/judge", "internal/mounts", "internal/syscalls", "internal/workload"},
	"internal/kernel":  {"internal/hint", "internal/observe", "internal/syscalls", "internal/workload"},
	"internal/seccomp": {"internal/hint", "internal/syscalls"},
	// Held calls, the process that keeps their listeners, and filters for processes that run: none of them judges.
	"internal/mounts":    {},
	"internal/supervise": {"internal/hint", "internal/mounts", "internal/syscalls"},
	"internal/holder":    {"internal/hint", "internal/syscalls"},
	"internal/inject":    {"internal/hint", "internal/syscalls"},
	"internal/image":     {"internal/hint", "internal/workload"},
	"internal/engine":    {"internal/hint", "internal/workload"},
	// What the kernel says of a process, for whoever is given a pid.
	"internal/engine/process": {"internal/engine", "internal/hint"},
	// Whether a container is like the one it was made like.
	"internal/engine/likeness": {"internal/engine", "internal/workload"},
	// How an engine's socket is spoken to, for the adapters of those that have one.
	"internal/engine/sockethttp": {"internal/engine", "internal/hint", "internal/workload"},

	// Adapters: each knows the engine it adapts and what we ask of one, and no sibling.
	"internal/engine/oci":    {"internal/engine", "internal/engine/process", "internal/hint", "internal/jsonedit", "internal/workload"},
	"internal/engine/podman": {"internal/engine", "internal/engine/likeness", "internal/engine/process", "internal/engine/sockethttp", "internal/hint", "internal/workload"},
	"internal/engine/docker": {"internal/engine", "internal/engine/likeness", "internal/engine/process", "internal/engine/sockethttp", "internal/hint", "internal/workload"},
	// What makes an engine call whittle, written to its configuration and taken back.
	"internal/install": {"internal/engine/oci", "internal/hint", "internal/jsonedit"},

	// Moving a service from one container to another: its listening sockets, or what arrives at the host for it.
	"internal/traffic": {"internal/hint"},
	"internal/gate":    {"internal/hint"},
	"internal/renew":   {"internal/engine", "internal/engine/process", "internal/gate", "internal/hint", "internal/traffic", "internal/units", "internal/workload"},

	// Time loops: what a hardened twin is and says, and when it takes production's place.
	"internal/oracle": {"internal/workload"},
	"internal/loop":   {"internal/oracle", "internal/policy", "internal/syscalls", "internal/workload"},
	// The same two as systemd units, of which one runs at a time.
	"internal/units": {"internal/hint", "internal/workload"},

	// Who answers for one supervised container: the plan decides, with what the kernel says of the caller.
	"internal/ward": {"internal/judge", "internal/kernel", "internal/observe", "internal/plan", "internal/policy", "internal/supervise", "internal/syscalls", "internal/workload"},

	// The daemon.
	"internal/store": {"internal/hint", "internal/observe", "internal/policy", "internal/syscalls", "internal/workload"},
	"internal/api":   {"internal/cve", "internal/engine", "internal/hint", "internal/judge", "internal/loop", "internal/observe", "internal/oracle", "internal/plan", "internal/policy", "internal/syscalls", "internal/workload"},
	"internal/agent": {
		"internal/api", "internal/corpus", "internal/cve", "internal/engine", "internal/engine/process", "internal/filter",
		"internal/hint", "internal/holder", "internal/inject", "internal/judge", "internal/kernel", "internal/learn",
		"internal/loop", "internal/observe", "internal/oracle", "internal/origin", "internal/plan",
		"internal/policy", "internal/renew", "internal/seccomp", "internal/store", "internal/supervise", "internal/syscalls",
		"internal/units", "internal/ward", "internal/workload",
	},

	// For tests.
	"internal/testenv":           {},
	"internal/engine/enginetest": {"internal/engine", "internal/hint", "internal/testenv", "internal/workload"},
}

// Whatever lies at or below these may import every package but the commands: they put the parts together.
var compositions = []string{"cmd", "demo", "testbed", "e2e", "examples"}

// forTests are packages that no shipped code may import.
var forTests = []string{"internal/testenv", "internal/engine/enginetest"}

// pure packages do no I/O and read no clock: whatever they decide can be replayed from a file.
var pure = []string{
	"internal/syscalls", "internal/workload", "internal/observe", "internal/assoc", "internal/learn",
	"internal/policy", "internal/cve", "internal/filter", "internal/plan", "internal/judge", "internal/oracle", "internal/loop",
}

// A name that says nothing collects everything.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "manager", "base", "impl", "v1", "types", "misc"}

// file is one parsed Go file.
type file struct {
	path string // slash-separated, from the root
	test bool
	ast  *ast.File
}

// dir is the package's path in the module.
func (f file) dir() string { return path.Dir(f.path) }

// goFiles parses every Go file of the module.
func goFiles(t *testing.T) []file {
	t.Helper()
	var out []file
	fset := token.NewFileSet()
	for _, name := range tree(t) {
		if path.Ext(name) != ".go" || slices.Contains(strings.Split(name, "/"), "testdata") {
			continue
		}
		parsed, err := parser.ParseFile(fset, filepath.FromSlash(name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("parse %s: %v", name, err)
			continue
		}
		out = append(out, file{path: name, test: strings.HasSuffix(name, "_test.go"), ast: parsed})
	}
	if len(out) == 0 {
		t.Fatal("no Go files found")
	}
	return out
}

// tree lists the files of the repository, without what git ignores.
func tree(t *testing.T) []string {
	t.Helper()
	var out []string
	err := fs.WalkDir(osRoot, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "dist", ".cache"}, name) {
			return fs.SkipDir
		}
		if entry.Type().IsRegular() {
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// imports of this module, as paths in it; or all imports.
func (f file) imports() (own, all []string) {
	for _, spec := range f.ast.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err) // the parser accepted it
		}
		all = append(all, name)
		if rest, ok := strings.CutPrefix(name, module+"/"); ok {
			own = append(own, rest)
		}
	}
	return own, all
}

// generator says whether a package only writes other packages' files at development time.
func generator(dir string) bool { return path.Base(dir) == "gen" }

func composition(dir string) bool {
	first, _, _ := strings.Cut(dir, "/")
	return slices.Contains(compositions, first)
}

func TestLayering(t *testing.T) {
	for _, f := range goFiles(t) {
		own, _ := f.imports()
		for _, problem := range layering(f.dir(), f.test, own) {
			t.Errorf("%s: %s", f.path, problem)
		}
	}
}

// layering says what is wrong with a file in dir that imports these packages of the module.
func layering(dir string, test bool, own []string) []string {
	var out []string
	allowed, known := layers[dir]
	if !known && !composition(dir) && !generator(dir) && dir != "." {
		out = append(out, "package "+dir+" is in no layer: add it to the table in arch_test.go, with what it may import")
	}
	for _, name := range own {
		switch {
		case strings.HasPrefix(name, "cmd/") && !strings.HasPrefix(dir, "cmd/"):
			out = append(out, "imports "+name+": nothing imports a command")
		case test:
		case slices.Contains(forTests, name) && !slices.Contains(forTests, dir) && !strings.HasPrefix(dir+"/", "testbed/"):
			out = append(out, "imports "+name+", which is for tests")
		case known && !slices.Contains(allowed, name):
			out = append(out, "imports "+name+", which the layering in arch_test.go does not allow")
		}
	}
	return out
}

func TestLayeringIsJudged(t *testing.T) {
	for _, tt := range []struct {
		name, dir string
		test      bool
		imports   string
		want      string // part of the problem; "" for none
	}{
		{"downstream", "internal/observe", false, "internal/learn", "does not allow"},
		{"upstream", "internal/learn", false, "internal/observe", ""},
		{"mechanism and policy", "internal/kernel", false, "internal/policy", "does not allow"},
		{"sibling adapter", "internal/engine/podman", false, "internal/engine/oci", "does not allow"},
		{"a test imports more", "internal/observe", true, "internal/learn", ""},
		{"unknown package", "internal/news", false, "internal/policy", "in no layer"},
		{"command", "internal/agent", true, "cmd/whittle", "nothing imports a command"},
		{"test help in the command", "cmd/whittle", false, "internal/testenv", "is for tests"},
		{"command puts together", "cmd/whittle", false, "internal/agent", ""},
		{"generator", "internal/syscalls/gen", false, "internal/syscalls", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(layering(tt.dir, tt.test, []string{tt.imports}), "; ")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("layering(%s imports %s) = %q, want %q", tt.dir, tt.imports, got, tt.want)
			}
		})
	}
}

// The table is the documentation of the layering, so it must not be able to contradict itself.
func TestLayersHaveNoCycle(t *testing.T) {
	done := make(map[string]bool)
	var visit func(name string, above []string)
	visit = func(name string, above []string) {
		if slices.Contains(above, name) {
			t.Errorf("a cycle: %s", strings.Join(append(above, name), " → "))
			return
		}
		if done[name] {
			return
		}
		for _, next := range layers[name] {
			if _, ok := layers[next]; !ok {
				t.Errorf("%s may import %s, which is in no layer", name, next)
			}
			visit(next, append(above, name))
		}
		done[name] = true
	}
	for name := range layers {
		visit(name, nil)
	}
	for _, name := range pure {
		for _, next := range layers[name] {
			if !slices.Contains(pure, next) {
				t.Errorf("%s is pure and may import %s, which is not", name, next)
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test || generator(f.dir()) || !slices.Contains(pure, f.dir()) {
			continue
		}
		for _, problem := range impurities(f) {
			t.Errorf("%s: %s; %s is pure", f.path, problem, f.dir())
		}
	}
}

// impureCalls are functions of importable packages that read a clock, write somewhere, or roll dice that no seed
// controls.
var impureCalls = map[string]func(name string) bool{
	"time": func(name string) bool {
		return slices.Contains([]string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTicker", "NewTimer"}, name)
	},
	"fmt":          func(name string) bool { return strings.HasPrefix(name, "Print") || strings.HasPrefix(name, "Scan") },
	"math/rand":    unseeded,
	"math/rand/v2": unseeded,
}

func unseeded(name string) bool {
	return !slices.Contains([]string{"New", "NewSource", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "Source", "PCG", "ChaCha8", "Zipf"}, name)
}

func impurities(f file) []string {
	var out []string
	_, all := f.imports()
	for _, name := range all {
		first, _, _ := strings.Cut(name, "/")
		if slices.Contains([]string{"os", "net", "syscall", "log", "plugin"}, first) ||
			strings.HasPrefix(name, "golang.org/x/sys/") || name == "io/ioutil" || name == "crypto/rand" {
			out = append(out, "imports "+name)
		}
	}
	impure := make(map[string]func(string) bool) // by the name that the file knows the package under
	for _, spec := range f.ast.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		calls, ok := impureCalls[name]
		if !ok {
			continue
		}
		local := path.Base(strings.TrimSuffix(name, "/v2"))
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." {
			out = append(out, "imports "+name+" with a dot")
		}
		impure[local] = calls
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := selector.X.(*ast.Ident); ok && impure[pkg.Name] != nil && impure[pkg.Name](selector.Sel.Name) {
			out = append(out, "uses "+pkg.Name+"."+selector.Sel.Name)
		}
		return true
	})
	return out
}

func TestImpuritiesAreFound(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"clean", `package p; import "time"; var d = time.Second`, ""},
		{"file access", `package p; import "os"; var x = os.Args`, "imports os"},
		{"part of os", `package p; import "os/exec"; var x = exec.Command`, "imports os/exec"},
		{"x/sys", `package p; import "golang.org/x/sys/unix"; var x = unix.Getpid`, "imports golang.org/x/sys/unix"},
		{"x/net/bpf is a vocabulary", `package p; import "golang.org/x/net/bpf"; var x bpf.Instruction`, ""},
		{"clock", `package p; import "time"; func f() { time.Now() }`, "uses time.Now"},
		{"clock as a value", `package p; import "time"; var now = time.Now`, "uses time.Now"},
		{"clock renamed", `package p; import clock "time"; var now = clock.Since`, "uses clock.Since"},
		{"dice", `package p; import "math/rand/v2"; var n = rand.IntN(3)`, "uses rand.IntN"},
		{"seeded dice", `package p; import "math/rand/v2"; var r = rand.New(rand.NewPCG(1, 2))`, ""},
		{"printing", `package p; import "fmt"; func f() { fmt.Println() }`, "uses fmt.Println"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parsed, err := parser.ParseFile(token.NewFileSet(), "p.go", tt.src, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(impurities(file{path: "p.go", ast: parsed}), "; "); got != tt.want {
				t.Errorf("impurities = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	documented := make(map[string]bool)
	for _, f := range goFiles(t) {
		dir := f.dir()
		documented[dir] = documented[dir] || f.ast.Doc != nil && len(f.ast.Doc.Text()) > len("Package x is y.")
		if name := f.ast.Name.Name; slices.Contains(emptyNames, strings.TrimSuffix(name, "_test")) {
			t.Errorf("%s: package %s: name it after what it is", f.path, name)
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment: say in one sentence what it is, and what it deliberately does not do", dir)
		}
		if slices.Contains(emptyNames, path.Base(dir)) {
			t.Errorf("directory %s: name it after what it is", dir)
		}
	}
}
