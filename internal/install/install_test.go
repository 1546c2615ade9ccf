// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var update = flag.Bool("update", false, "write the golden files")

const (
	dockersOwn     = "{\n    \"log-driver\": \"journald\",\n    \"runtimes\": {\"nvidia\": {\"path\": \"/usr/bin/nvidia-container-runtime\"}},\n    \"default-runtime\": \"nvidia\"\n}\n"
	containerdsOwn = "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/usr/lib/cni\"\n"
	withOptions    = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\n  default_runtime_name = 'crun'\n" +
		"[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun]\n  runtime_type = 'io.containerd.runc.v2'\n" +
		"  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]\n    BinaryName = '/usr/bin/crun' # ours\n    SystemdCgroup = true\n"
)

var trees = []struct {
	name, engine string
	files        map[string]string
}{
	{"podman", "podman", nil},
	{"podman_elsewhere", "podman", map[string]string{
		"/etc/containers/containers.conf": "[containers]\nhooks_dir = [\"/no\"]\n[engine]\n# hooks_dir = [\"/no\"]\nhooks_dir = [\n  \"/usr/share/containers/oci/hooks.d\",\n  \"/etc/containers/oci/hooks.d\",\n]\n",
	}},
	{"docker", "docker", nil},
	{"docker_configured", "docker", map[string]string{"/etc/docker/daemon.json": dockersOwn}},
	{"docker_one_line", "docker", map[string]string{"/etc/docker/daemon.json": `{"debug":true}`}},
	{"docker_empty", "docker", map[string]string{"/etc/docker/daemon.json": "{}\n"}},
	{"containerd", "containerd", nil},
	{"containerd_configured", "containerd", map[string]string{"/etc/containerd/config.toml": containerdsOwn}},
	{"containerd_options", "containerd", map[string]string{"/etc/containerd/config.toml": withOptions}},
	{"containerd_no_newline", "containerd", map[string]string{"/etc/containerd/config.toml": "version = 2"}},
}

// tree is a root file system with the executable in it.
func tree(t *testing.T, files map[string]string) Options {
	t.Helper()
	o := Options{Root: t.TempDir(), Whittle: "/usr/bin/whittle", Socket: "/run/whittle/whittle.sock"}
	put(t, o, "/usr/bin/whittle", "#!/bin/sh\n", 0o755)
	for name, text := range files {
		put(t, o, name, text, 0o640)
	}
	return o
}

func put(t *testing.T, o Options, name, text string, mode fs.FileMode) {
	t.Helper()
	name = filepath.Join(o.Root, name)
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(text), mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot of every file, link and directory below a root, with permissions.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%v %s", info.Mode(), strings.TrimPrefix(name, root))
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "\n%s", text)
		}
		if to, err := os.Readlink(name); err == nil {
			fmt.Fprintf(&b, " -> %s", to)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// There and back: what it shows and writes is in the golden file; twice is once; and afterwards nothing is left.
func TestRoundTrip(t *testing.T) {
	for _, tt := range trees {
		t.Run(tt.name, func(t *testing.T) {
			o := tree(t, tt.files)
			o.Engine = tt.engine
			before := snapshot(t, o.Root)
			dry := o
			dry.DryRun = true
			shown, err := Install(dry)
			if err != nil || snapshot(t, o.Root) != before {
				t.Fatalf("a dry run changed something (%v)", err)
			}
			r, err := Install(o)
			if err != nil || len(r.Changes) == 0 || text(shown) != text(r) {
				t.Fatalf("Install = %s, %v; the dry run showed %s", text(r), err, text(shown))
			}
			golden(t, tt.name, text(r))
			installed := snapshot(t, o.Root)
			if again, err := Install(o); err != nil || len(again.Changes) > 0 || snapshot(t, o.Root) != installed {
				t.Errorf("a second time: %s, %v", text(again), err)
			}
			if r, err := Uninstall(o); err != nil || len(r.Changes) == 0 {
				t.Errorf("Uninstall = %s, %v", text(r), err)
			}
			if after := snapshot(t, o.Root); after != before {
				t.Errorf("it leaves\n%s\nof\n%s", after, before)
			}
			if r, err := Uninstall(o); err != nil || len(r.Changes) > 0 {
				t.Errorf("uninstalled twice: %s, %v", text(r), err)
			}
		})
	}
}

func text(r Result) string {
	var b strings.Builder
	for _, c := range r.Changes {
		b.WriteString(c.String())
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || string(want) != got {
		t.Errorf("it shows\n%s\nwant (%s, -update)\n%s(%v)", got, name, want, err)
	}
}

// What others wrote after Whittle stays, and what they took away is not missed.
func TestOthersEdits(t *testing.T) {
	for _, tt := range []struct {
		name, engine, path string
		before             string
		edit               func(string) string
		want               string
		refused            bool
	}{
		{"docker", "docker", "/etc/docker/daemon.json", dockersOwn,
			func(s string) string { return strings.Replace(s, `"journald"`, `"local"`, 1) },
			strings.Replace(dockersOwn, `"journald"`, `"local"`, 1), false},
		{"docker, its own file", "docker", "/etc/docker/daemon.json", "",
			func(s string) string { return strings.Replace(s, "{", `{"debug":true,`, 1) }, "", false},
		{"docker, another default", "docker", "/etc/docker/daemon.json", `{"debug":true}`,
			func(s string) string {
				return strings.Replace(s, `"default-runtime":"whittle"`, `"default-runtime":"x"`, 1)
			},
			`{"debug":true,"default-runtime":"x"}`, true},
		{"containerd", "containerd", "/etc/containerd/config.toml", containerdsOwn,
			func(s string) string { return s + "[metrics]\n  address = \"x\"\n" }, containerdsOwn + "[metrics]\n  address = \"x\"\n", false},
		{"containerd's options", "containerd", "/etc/containerd/config.toml", withOptions,
			func(s string) string { return "# mine\n" + s }, "# mine\n" + withOptions, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{}
			if tt.before != "" {
				files[tt.path] = tt.before
			}
			o := tree(t, files)
			o.Engine = tt.engine
			if _, err := Install(o); err != nil {
				t.Fatal(err)
			}
			s, err := o.read(tt.path)
			if err != nil {
				t.Fatal(err)
			}
			put(t, o, tt.path, tt.edit(string(s.contents)), 0o640)
			if _, err := Install(o); err != nil && !tt.refused { // again, over the edit
				t.Fatal(err)
			}
			if _, err := Uninstall(o); err != nil {
				t.Fatal(err)
			}
			s, err = o.read(tt.path)
			if err != nil || tt.want != "" && string(s.contents) != tt.want || strings.Contains(string(s.contents), "whittle") {
				t.Errorf("it leaves %s (%v), want %s", s.contents, err, tt.want)
			}
		})
	}
}

// Docker's containers remember the name of their runtime: it stays until they are gone.
func TestDockerContainersKeepTheirRuntime(t *testing.T) {
	o := tree(t, map[string]string{"/etc/docker/daemon.json": `{"debug":true,"data-root":"/srv/docker"}`})
	o.Engine = "docker"
	before := snapshot(t, o.Root)
	if _, err := Install(o); err != nil {
		t.Fatal(err)
	}
	const made = "/srv/docker/containers/0123456789abcdef/hostconfig.json"
	put(t, o, made, `{"Runtime":"whittle"}`, 0o600)
	r, err := Uninstall(o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := o.read("/etc/docker/daemon.json")
	if want := `{"debug":true,"data-root":"/srv/docker","runtimes":{"whittle":{"path":"runc"}},"default-runtime":"runc"}`; err != nil || string(s.contents) != want {
		t.Errorf("daemon.json is %s (%v), want %s", s.contents, err, want)
	}
	if notes := strings.Join(r.Notes, "; "); !strings.Contains(notes, "0123456789ab") {
		t.Errorf("it says %s", notes)
	}
	if err := os.RemoveAll(filepath.Join(o.Root, "srv")); err != nil {
		t.Fatal(err)
	}
	if _, err := Uninstall(o); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t, o.Root); after != before {
		t.Errorf("it leaves\n%s\nof\n%s", after, before)
	}
}

// A failure at any step leaves everything as it was; so does, once it is uninstalled, a death at any step.
func TestFailureInTheMiddle(t *testing.T) {
	for _, tt := range trees {
		t.Run(tt.name, func(t *testing.T) {
			dry := tree(t, tt.files)
			dry.Engine, dry.DryRun = tt.engine, true
			r, err := Install(dry)
			if err != nil {
				t.Fatal(err)
			}
			for i := range r.Changes {
				failAt(t, tt.engine, tt.files, i, r.Changes[i].Path)
				dieAt(t, tt.engine, tt.files, i)
			}
		})
	}
}

// failAt a change: a directory stands where the new file would be written.
func failAt(t *testing.T, engine string, files map[string]string, i int, name string) {
	t.Helper()
	o := tree(t, files)
	o.Engine = engine
	if err := os.MkdirAll(o.below(name+".whittle-new")+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, o.Root)
	if r, err := Install(o); err == nil {
		t.Fatalf("step %d did not fail: %s", i, text(r))
	}
	if after := snapshot(t, o.Root); after != before {
		t.Errorf("a failure at step %d leaves\n%s\nof\n%s", i, after, before)
	}
}

// dieAt a change: those before it are made, and nothing is taken back.
func dieAt(t *testing.T, engine string, files map[string]string, i int) {
	t.Helper()
	o := tree(t, files)
	o.Engine = engine
	before := snapshot(t, o.Root)
	r, err := Install(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Changes[i:] {
		if err := o.write(c.Path, c.before); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Uninstall(o); err != nil {
		t.Errorf("after a death at step %d: %v", i, err)
	}
	if after := snapshot(t, o.Root); after != before {
		t.Errorf("a death at step %d leaves\n%s\nof\n%s", i, after, before)
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, engine, path, text, says string
	}{
		{"not JSON", "docker", "/etc/docker/daemon.json", "{ // comment\n}", "daemon.json"},
		{"twice", "docker", "/etc/docker/daemon.json", `{"runtimes":{},"runtimes":{}}`, "more than once"},
		{"with arguments", "docker", "/etc/docker/daemon.json", `{"default-runtime":"k","runtimes":{"k":{"path":"/k","runtimeArgs":["-x"]}}}`, "no plain executable"},
		{"unknown default", "docker", "/etc/docker/daemon.json", `{"default-runtime":"k"}`, "no entry"},
		{"an old version", "containerd", "/etc/containerd/config.toml", "[plugins.cri]\n", "version is 1"},
		{"long strings", "containerd", "/etc/containerd/config.toml", "version = 2\nx = \"\"\"\n[a]\"\"\"\n", "several lines"},
		{"in braces", "containerd", "/etc/containerd/config.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nruntimes = {runc = {}}\n", "not understood"},
		{"dotted", "containerd", "/etc/containerd/config.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nruntimes.runc.x = 1\n", "not understood"},
		{"no engine", "rkt", "/x", "", "unknown engine"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := tree(t, map[string]string{tt.path: tt.text})
			o.Engine = tt.engine
			before := snapshot(t, o.Root)
			if r, err := Install(o); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Install = %s, %v; want %s", text(r), err, tt.says)
			}
			if snapshot(t, o.Root) != before {
				t.Error("something changed")
			}
		})
	}
}

func TestSymlink(t *testing.T) {
	o := tree(t, map[string]string{"/srv/daemon.json": "{}"})
	o.Engine = "docker"
	if err := os.Mkdir(o.below("/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(o.below("/etc/docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/srv/daemon.json", o.below("/etc/docker/daemon.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(o); err == nil || hint.Of(err) == "" {
		t.Errorf("Install over a symbolic link: %v", err)
	}
}

func TestExecutable(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(o *Options) error
	}{
		{"absent", func(o *Options) error { return os.Remove(o.below(o.Whittle)) }},
		{"relative", func(o *Options) error { o.Whittle = "whittle"; return nil }},
		{"not executable", func(o *Options) error { return os.Chmod(o.below(o.Whittle), 0o644) }},
		{"anybody's", func(o *Options) error { return os.Chmod(o.below(o.Whittle), 0o777) }},
		{"in anybody's directory", func(o *Options) error { return os.Chmod(o.below("/usr/bin"), 0o777|fs.ModeSticky) }},
		{"a directory", func(o *Options) error { o.Whittle = "/usr/bin"; return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := tree(t, nil)
			o.Engine = "podman"
			if err := tt.spoil(&o); err != nil {
				t.Fatal(err)
			}
			if _, err := Install(o); err == nil || hint.Of(err) == "" {
				t.Errorf("Install = %v", err)
			}
		})
	}
	o := Options{Engine: "podman", Whittle: filepath.Join(t.TempDir(), "whittle"), DryRun: true}
	if err := os.WriteFile(o.Whittle, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(o); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a temporary directory: %v", err)
	}
}

// Whatever a config.toml holds, what is put in is found and taken out again.
func FuzzBinaryName(f *testing.F) {
	f.Add(containerdsOwn)
	f.Add(withOptions)
	f.Add("version = 2\nimports = [\n  \"x\",\n]\n")
	f.Fuzz(func(t *testing.T, config string) {
		edited, err := withBinaryName([]byte(config), "/w")
		if err != nil || strings.Contains(config, "whittle install") {
			return
		}
		again, err := withBinaryName(edited, "/w")
		if err != nil || string(again) != string(edited) {
			t.Errorf("%q became %q and then %q (%v)", config, edited, again, err)
		}
		back, err := withoutBinaryName(edited)
		if err != nil || strings.Contains(string(back), `"/w"`) != strings.Contains(config, `"/w"`) {
			t.Errorf("%q became %q and then %q (%v)", config, edited, back, err)
		}
	})
}
