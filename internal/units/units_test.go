// SPDX-License-Identifier: Apache-2.0

package units

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/testenv"
)

var update = flag.Bool("update", false, "write the golden files anew")

// nasty words mean something to systemd, to a shell or to Podman.
var nasty = []string{
	"%n", "100%", "%%", "$HOME", "${HOME}", "$$", `"`, `'`, `\`, `\n`, `\x41`, ";", `\;`, "#", "a b", " ", "-x", "@", "+", "!", "&&", "|", "`id`",
	"$(id)", "*", "~", "é", "=", "K=V W", "{}", "<a>", "%h/%t", `"a" 'b' \ $c %d`, `end\`,
}

func full() Containers {
	return Containers{
		Production: Container{
			Podman: "/usr/bin/podman", Name: "web", Image: "docker.io/library/web:1",
			Flags:   []string{"--publish=127.0.0.1:8080:80", "--volume=data:/data", "--env", `GREETING=100% "$USER"`},
			Command: []string{"web", "--root", "/data"}, StopTimeout: 20 * time.Second, Restart: "always",
		},
		Oracle: Container{
			Podman: "/usr/bin/podman", Name: "web-oracle", Image: "localhost/web:asan", Pull: "never",
			Flags:   []string{"--publish=127.0.0.1:8080:80", "--volume=data:/data", "--env=ASAN_OPTIONS=exitcode=66:abort_on_error=0"},
			Command: []string{"web", "--root", "/data"}, StopTimeout: 2 * time.Second,
		},
		Longest: 3 * time.Minute,
	}
}

func TestGolden(t *testing.T) {
	units, err := full().Units()
	if err != nil {
		t.Fatal(err)
	}
	quadlets, err := full().Quadlets()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := (Pair{
		Name:       "plain",
		Production: Service{Start: []string{"/usr/sbin/plain"}, Environment: map[string]string{"A": "50% of $B", "B": ""}},
		Oracle:     Service{Start: []string{"/opt/asan/plain"}},
	}).Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(append(units, quadlets...), plain...) {
		golden := filepath.Join("testdata", f.Name)
		if *update {
			if err := os.WriteFile(golden, []byte(f.Text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), f.Text); diff != "" {
			t.Errorf("%s (-want +got):\n%s", f.Name, diff)
		}
		if !Ours(f.Text) || Ours("[Unit]\n"+f.Text) {
			t.Errorf("%s is not recognised", f.Name)
		}
	}
}

// systemd reads what is in testdata without a word.
func TestVerify(t *testing.T) {
	testenv.NeedTool(t, "systemd-analyze")
	dir := t.TempDir()
	paths, err := filepath.Glob("testdata/*.service")
	if err != nil || len(paths) < 4 {
		t.Fatalf("%v, %v", paths, err)
	}
	args := []string{"verify", "--man=no", "--recursive-errors=no"}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// It asks whether the programs are there; they need not be where this test runs.
		for _, program := range []string{"/usr/bin/podman", "/usr/sbin/plain", "/opt/asan/plain"} {
			text = []byte(strings.ReplaceAll(string(text), program, "/bin/true"))
		}
		name := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	out, err := cmd.CombinedOutput()
	if err != nil || len(strings.TrimSpace(string(out))) > 0 {
		t.Errorf("systemd-analyze verify: %v:\n%s", err, out)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Containers)
		want   string
	}{
		{"a flag for an image", func(c *Containers) { c.Oracle.Image = "--privileged" }, "no name of an image"},
		{"an image with a space", func(c *Containers) { c.Oracle.Image = "a --privileged" }, "no name of an image"},
		{"no image", func(c *Containers) { c.Production.Image = "" }, "no name of an image"},
		{"a name for a shell", func(c *Containers) { c.Production.Name, c.Oracle.Name = "web;reboot", "web;reboot-oracle" }, "no name for a unit"},
		{"a name for a path", func(c *Containers) { c.Production.Name, c.Oracle.Name = "../web", "../web-oracle" }, "no name for a unit"},
		{"a template", func(c *Containers) { c.Production.Name, c.Oracle.Name = "web@1", "web@1-oracle" }, "no name for a unit"},
		{"an oracle's name", func(c *Containers) { c.Production.Name, c.Oracle.Name = "a-oracle", "a-oracle-oracle" }, "is the name of an oracle"},
		{"another oracle", func(c *Containers) { c.Oracle.Name = "other-oracle" }, `is called "web-oracle"`},
		{"a line break", func(c *Containers) { c.Oracle.Command = []string{"a\nExecStart=/bin/sh"} }, "line break"},
		{"a carriage return", func(c *Containers) { c.Production.Flags = []string{"a\r"} }, "line break"},
		{"a NUL", func(c *Containers) { c.Production.Flags = []string{"a\x00"} }, "control character"},
		{"C1", func(c *Containers) { c.Production.Flags = []string{"a\u0085"} }, "control character"},
		{"not UTF-8", func(c *Containers) { c.Production.Flags = []string{"a\xff"} }, "not UTF-8"},
		{"a huge word", func(c *Containers) { c.Production.Flags = []string{strings.Repeat("a", 1<<20)} }, "a word of"},
		{"a huge line", func(c *Containers) {
			for range 100 {
				c.Production.Flags = append(c.Production.Flags, strings.Repeat("a", 1<<16))
			}
		}, "a command of"},
		{"many words", func(c *Containers) { c.Production.Command = make([]string, 10000) }, "a command of"},
		{"a relative podman", func(c *Containers) { c.Oracle.Podman = "podman" }, "absolute path"},
		{"a podman with a specifier", func(c *Containers) { c.Oracle.Podman = "/opt/%h/podman" }, "absolute path"},
		{"the unit's own flag", func(c *Containers) { c.Oracle.Flags = []string{"--name=other"} }, "--name is set by the unit"},
		{"detach", func(c *Containers) { c.Oracle.Flags = []string{"--detach"} }, "--detach is set by the unit"},
		{"pull", func(c *Containers) { c.Oracle.Pull = "sometimes" }, "pulled always"},
		{"restart", func(c *Containers) { c.Production.Restart = "always\n" }, "unknown way to restart"},
		{"no time", func(c *Containers) { c.Longest = -1 }, "a second at least"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := full()
			tt.change(&c)
			_, err := c.Units()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
			if _, err := c.Quadlets(); err == nil && !strings.Contains(tt.name, "podman") && tt.name != "a huge line" {
				t.Error("as quadlets it is accepted")
			}
		})
	}
	if err := CheckName("-x"); hint.Of(err) == "" {
		t.Errorf("%v has no hint", err)
	}
}

// split is how systemd takes a line apart, as far as this package writes it: words of plain characters, or in double
// quotes with \" and \\; then %% and $$ are one.
func split(t *testing.T, text string) (out []string) {
	t.Helper()
	for text != "" {
		text = strings.TrimPrefix(text, " ")
		var word strings.Builder
		if rest, quoted := strings.CutPrefix(text, `"`); quoted {
			for text = rest; text != "" && text[0] != '"'; text = text[1:] {
				if text[0] == '\\' {
					text = text[1:]
				}
				word.WriteByte(text[0])
			}
			if text == "" {
				t.Fatal("a quote is not closed")
			}
			text = text[1:]
		} else {
			end := strings.IndexByte(text+" ", ' ')
			word.WriteString(text[:end])
			text = text[end:]
		}
		one := word.String()
		for _, c := range []string{"%", "$"} {
			if strings.Contains(strings.ReplaceAll(one, c+c, ""), c) {
				t.Fatalf("%q has a %s that means something", one, c)
			}
			one = strings.ReplaceAll(one, c+c, c)
		}
		out = append(out, one)
	}
	return out
}

func FuzzWords(f *testing.F) {
	for _, w := range nasty {
		f.Add(w, "b")
	}
	f.Add("", "\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		want := []string{a, b}
		text, err := words(want)
		if err != nil {
			return
		}
		if strings.ContainsAny(text, "\n\r\x00") {
			t.Fatalf("%q has a line break", text)
		}
		if diff := cmp.Diff(want, split(t, text)); diff != "" {
			t.Errorf("%q comes back as (-want +got):\n%s", text, diff)
		}
	})
}
