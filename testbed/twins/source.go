// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// debianSource fetches and unpacks the source of a package from where the machine gets its packages, at the version that is
// given, and returns its directory. Apt's own lists and sources are not touched: it is told other directories.
func debianSource(ctx context.Context, dir, name, version string) (string, error) {
	base := filepath.Join(dir, "source-"+name+"-"+regexp.MustCompile(`[^0-9A-Za-z.+~-]`).ReplaceAllString(version, "_"))
	if found, err := filepath.Glob(filepath.Join(base, "*", "configure")); err == nil && len(found) == 1 {
		return filepath.Dir(found[0]), nil
	}
	work, err := os.MkdirTemp(dir, "apt.")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	for _, sub := range []string{"parts", "lists/partial", "cache/archives/partial", "unpacked"} {
		if err := os.MkdirAll(filepath.Join(work, sub), 0o755); err != nil {
			return "", err
		}
	}
	if err := sourceLists(filepath.Join(work, "parts")); err != nil {
		return "", fmt.Errorf("derive where sources are from where packages are: %w", err)
	}
	apt := func(args ...string) error {
		options := []string{"-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Etc::sourceparts=" + work + "/parts", "-o", "Dir::State::lists=" + work + "/lists",
			"-o", "Dir::Cache=" + work + "/cache", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"}
		_, err := output(ctx, filepath.Join(work, "unpacked"), "apt-get", append(options, args...)...)
		return err
	}
	// Some of the machine's sources may have packages only, which update says: what counts is whether the source is found.
	update := apt("update")
	if err := apt("source", "--only-source", name+"="+version); err != nil {
		return "", fmt.Errorf("fetch the source of %s %s: %w (apt-get update: %v); it needs `apt-get install dpkg-dev`", name, version, err, update)
	}
	if err := os.Rename(filepath.Join(work, "unpacked"), base); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(base, "*", "configure"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("unpack the source of %s %s: there is no one configure in it: %v", name, version, found)
	}
	return filepath.Dir(found[0]), nil
}

var (
	oneLine = regexp.MustCompile(`(?m)^deb[ \t]`)
	deb822  = regexp.MustCompile(`(?m)^Types:.*$`)
)

// sourceLists writes apt's lists of sources for the packages that apt's configuration names.
func sourceLists(to string) error {
	names, err := filepath.Glob("/etc/apt/sources.list.d/*")
	if err != nil {
		return err
	}
	for _, name := range append(names, "/etc/apt/sources.list") {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		out := ""
		switch filepath.Ext(name) {
		case ".list":
			for line := range strings.Lines(string(text)) {
				if oneLine.MatchString(line) {
					out += oneLine.ReplaceAllString(line, "deb-src ")
				}
			}
		case ".sources":
			out = deb822.ReplaceAllString(string(text), "Types: deb-src")
		}
		if out == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(name)), []byte(out), 0o644); err != nil {
			return err
		}
	}
	return nil
}
