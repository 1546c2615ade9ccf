// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed"
)

// compiler and its version, so that another one builds again.
func compiler(ctx context.Context) (string, error) {
	version, err := output(ctx, "", "gcc", "-v", "-dumpfullversion", "-dumpmachine")
	if err != nil {
		return "", fmt.Errorf("%w; install it with `apt-get install gcc libc6-dev`", err)
	}
	return version, nil
}

// output of a command that is run in a directory.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(stderr.String())
		return "", fmt.Errorf("%s: %w: %s", name, err, text[max(0, len(text)-1500):])
	}
	return string(out), nil
}

// contents of an image.
type contents struct {
	packages []string
	follow   string
	files    []image.File
	// compiled are modules whose Python files, and those of what they import, come with their bytecode.
	compiled []string
	// programs are files of ours that need libraries, by their paths in the image.
	programs map[string]string
}

// bake an image with one layer, unless it is there.
func bake(ctx context.Context, dir string, config image.Config, c contents) (Image, error) {
	from, err := c.identity(ctx, config)
	if err != nil {
		return Image{}, fmt.Errorf("build %s: %w", config.Name, err)
	}
	base := strings.NewReplacer("localhost/", "", ":", "-").Replace(config.Name)
	path, err := cached(dir, base, from, func(path string) error {
		files, err := c.collect(ctx, filepath.Dir(path))
		if err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		buffered := bufio.NewWriterSize(f, 1<<20)
		if err := image.Write(buffered, config, files); err != nil {
			return err
		}
		if err := buffered.Flush(); err != nil {
			return err
		}
		return f.Close()
	})
	return Image{Name: config.Name, Archive: path}, err
}

// identity is everything that the image depends on, but for the distribution's own files: their packages' versions stand for them.
func (c contents) identity(ctx context.Context, config image.Config) ([]string, error) {
	out := []string{fmt.Sprintf("%+v", config), c.follow, bytecodeScript, fmt.Sprint(c.compiled)}
	for _, f := range c.files {
		out = append(out, f.Path, f.Mode.String(), string(f.Data), f.Link, f.Source)
	}
	for path, source := range c.programs { // one
		out = append(out, path, source)
	}
	versions, err := output(ctx, "", "dpkg-query", append([]string{"-W", "-f", "${Package} ${Version}\n", "libc6"}, c.packages...)...)
	if err != nil {
		return nil, fmt.Errorf("%w; install what is missing with `make deps`", err)
	}
	return append(out, versions), nil
}

// collect the files. The directory is for what has to be there until they are written.
func (c contents) collect(ctx context.Context, work string) ([]image.File, error) {
	d := testbed.Debian{Packages: c.packages}
	if c.follow != "" {
		d.Follow = regexp.MustCompile(c.follow)
	}
	more := slices.Clone(c.files)
	for path, source := range c.programs {
		libraries, err := output(ctx, "", "ldd", source)
		if err != nil {
			return nil, err
		}
		for field := range strings.FieldsSeq(libraries) {
			if filepath.IsAbs(field) && !strings.HasSuffix(field, ":") {
				d.Also = append(d.Also, field)
			}
		}
		f, err := image.Host(source, path)
		if err != nil {
			return nil, err
		}
		more = append(more, f)
	}
	bytecode, err := bytecode(ctx, work, c.compiled)
	if err != nil {
		return nil, err
	}
	more = append(more, bytecode...)
	files, err := d.Files(ctx)
	if err != nil {
		return nil, err
	}
	given := make(map[string]bool)
	for _, f := range more {
		given[f.Path] = true
	}
	var out []image.File
	for _, f := range files {
		if !given[f.Path] {
			out = append(out, f)
		}
	}
	return append(out, more...), nil
}
