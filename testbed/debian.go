// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/image"
)

// Debian collects the files of installed packages, with the libraries that their programs need, for an image.
type Debian struct {
	Packages []string
	// Follow adds the dependencies, and theirs, whose names match: "^redis". Nil follows none.
	Follow *regexp.Regexp
	// Also are files of this machine beside the packages', at the same paths.
	Also  []string
	files map[string]image.File
}

// unneeded is most of a package's size, and no service reads it.
var unneeded = regexp.MustCompile(`^/usr/share/(doc|man|info|locale|lintian|bug|doc-base)(/|$)|/__pycache__(/|$)`)

// skeleton of a root file system: what a service expects beside its package.
var skeleton = []image.File{
	image.Dir("dev", 0o755), image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("run", 0o755),
	image.Dir("tmp", 0o777|fs.ModeSticky), image.Dir("var", 0o755), image.Dir("var/tmp", 0o777|fs.ModeSticky),
	image.Dir("root", 0o700), image.Dir("usr", 0o755), image.Dir("etc", 0o755),
	image.Symlink("var/run", "/run"),
}

// hostFiles are taken as they are where they exist. glibc opens some of them, and loads some of the libraries, by name.
var hostFiles = []string{
	"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", // links into /usr since Debian 12
	"/etc/nsswitch.conf", "/etc/services", "/etc/protocols", "/etc/debian_version", "/usr/lib/os-release", "/etc/os-release",
	"/etc/mime.types",
	"/lib/*/libnss_files.so.2", "/lib/*/libnss_dns.so.2", "/lib/*/libgcc_s.so.1",
}

// Files of an image.
func (d *Debian) Files(ctx context.Context) ([]image.File, error) {
	d.files = make(map[string]image.File)
	for _, f := range skeleton {
		d.files[f.Path] = f
	}
	packages, err := d.closure(ctx)
	if err != nil {
		return nil, fmt.Errorf("collect packages: %w", err)
	}
	for _, pattern := range hostFiles {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("collect packages: %w", err)
		}
		for _, name := range names {
			if err := d.add(name); err != nil {
				return nil, fmt.Errorf("collect packages: %w", err)
			}
		}
	}
	list, err := output(ctx, "dpkg", append([]string{"-L"}, packages...)...)
	if err != nil {
		return nil, fmt.Errorf("collect packages: %w", err)
	}
	for line := range strings.Lines(list) {
		name := strings.TrimSuffix(line, "\n")
		if !filepath.IsAbs(name) || name == "/." || unneeded.MatchString(name) {
			continue
		}
		if err := d.add(name); err != nil {
			return nil, fmt.Errorf("collect packages: %w", err)
		}
	}
	for _, name := range d.Also {
		if err := d.add(name); err != nil {
			return nil, fmt.Errorf("collect packages: %w", err)
		}
	}
	if err := d.addUsers(); err != nil {
		return nil, fmt.Errorf("collect packages: %w", err)
	}
	if err := d.addLibraries(ctx); err != nil {
		return nil, fmt.Errorf("collect packages: %w", err)
	}
	out := make([]image.File, 0, len(d.files))
	for _, f := range d.files {
		out = append(out, f)
	}
	return out, nil
}

// closure of the packages over the dependencies to follow.
func (d *Debian) closure(ctx context.Context) ([]string, error) {
	out := slices.Clone(d.Packages)
	for i := 0; i < len(out); i++ {
		depends, err := output(ctx, "dpkg-query", "-W", "-f", "${Pre-Depends}, ${Depends}", out[i])
		if err != nil {
			return nil, fmt.Errorf("%w; install it with `apt-get install %s`", err, out[i])
		}
		if d.Follow == nil {
			continue
		}
		for _, word := range strings.FieldsFunc(depends, func(r rune) bool { return r == ',' || r == '|' }) {
			name, _, _ := strings.Cut(strings.TrimSpace(word), " ")
			name, _, _ = strings.Cut(name, ":")
			if name == "" || !d.Follow.MatchString(name) || slices.Contains(out, name) {
				continue
			}
			// Alternatives and virtual packages are named without being installed.
			if _, err := output(ctx, "dpkg", "-L", name); err == nil {
				out = append(out, name)
			}
		}
	}
	return out, nil
}

// add a file of the host with its parents, under its path without symbolic links in it, and what a link leads to.
func (d *Debian) add(name string) error {
	for range 40 { // as many links as the kernel follows
		dir, err := filepath.EvalSymlinks(filepath.Dir(name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file of the package that was removed or diverted on this machine
		}
		if err != nil {
			return err
		}
		if dir != "/" {
			if err := d.add(dir); err != nil {
				return err
			}
		}
		name = filepath.Join(dir, filepath.Base(name))
		f, err := image.Host(name, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, ok := d.files[f.Path]; ok {
			return nil
		}
		d.files[f.Path] = f
		if f.Link == "" {
			return nil
		}
		if filepath.IsAbs(f.Link) {
			name = f.Link
		} else {
			name = filepath.Join(dir, f.Link)
		}
	}
	return fmt.Errorf("%s: too many symbolic links", name)
}

// addUsers writes the system's own users and groups, and none of the people.
func (d *Debian) addUsers() error {
	for _, name := range []string{"/etc/passwd", "/etc/group"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var kept strings.Builder
		for line := range strings.Lines(string(text)) {
			fields := strings.Split(line, ":")
			if len(fields) > 2 && (len(fields[2]) < 4 || fields[2] == "65534") {
				kept.WriteString(line)
			}
		}
		f := image.Data(name, 0o644, []byte(kept.String()))
		d.files[f.Path] = f
	}
	return nil
}

// addLibraries asks ldd for everything that the collected ELF files load.
func (d *Debian) addLibraries(ctx context.Context) error {
	var programs []string
	for _, f := range d.files {
		if f.Source != "" && dynamic(f.Source) {
			programs = append(programs, f.Source)
		}
	}
	if len(programs) == 0 {
		return nil
	}
	list, err := output(ctx, "ldd", programs...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		// "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)"
		if _, path, ok := strings.Cut(line, "=>"); ok {
			line = path
		}
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !filepath.IsAbs(name) || strings.HasSuffix(name, ":") {
			continue
		}
		if err := d.add(name); err != nil {
			return err
		}
	}
	return nil
}

// dynamic tells whether a file is an ELF file that loads libraries.
func dynamic(name string) bool {
	f, err := elf.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	return err == nil && len(needed) > 0
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
