// SPDX-License-Identifier: Apache-2.0

package install

import (
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine/oci"
)

// Directories of hooks. Podman 4.3 reads the first unless it is told otherwise, and the second, for which its manual has a place, only
// if hooks_dir names it.
const (
	podmanHooks = "/usr/share/containers/oci/hooks.d"
	localHooks  = "/etc/containers/oci/hooks.d"
)

func (o Options) podman() (plan, error) {
	dir, err := o.hooksDir()
	if err != nil {
		return plan{}, err
	}
	p := plan{
		installed: []string{
			"every container that Podman starts from now on is asked about; those that run are not touched",
			"containers of users: theirs too, if they are in the group whittle and have no hooks_dir of their own in ~/.config/containers/containers.conf",
			"before the executable " + o.Whittle + " is removed: sudo whittle uninstall --engine podman, or no container starts",
		},
		uninstalled: []string{"containers that run stay as they are"},
	}
	files := oci.HookConfig(o.Whittle, o.Socket)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p.targets = append(p.targets, ownTarget(path.Join(dir, name), false, files[name]))
	}
	return p, nil
}

// hooksDir is a directory that Podman looks into for root's containers.
func (o Options) hooksDir() (string, error) {
	files := []string{"/usr/share/containers/containers.conf", "/etc/containers/containers.conf"}
	found, err := filepath.Glob(o.below("/etc/containers/containers.conf.d/*.conf"))
	if err != nil {
		return "", err
	}
	for _, name := range found { // sorted, as Podman does
		files = append(files, "/etc/containers/containers.conf.d/"+path.Base(name))
	}
	dirs := []string{podmanHooks}
	for _, name := range files {
		conf, err := o.read(name)
		if err != nil {
			return "", err
		}
		if conf.link {
			if conf, err = o.read(path.Join(path.Dir(name), string(conf.contents))); err != nil {
				return "", err
			}
		}
		if set := hooksIn(string(conf.contents)); len(set) > 0 {
			dirs = set
		}
	}
	if slices.Contains(dirs, localHooks) {
		return localHooks, nil
	}
	return dirs[len(dirs)-1], nil // later ones override
}

// hooksIn finds hooks_dir of the table [engine].
func hooksIn(conf string) (dirs []string) {
	engine, inside := false, false
	for line := range strings.Lines(conf) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		if !inside {
			if strings.HasPrefix(line, "[") {
				engine = strings.HasPrefix(line, "[engine]")
			}
			key, value, ok := strings.Cut(line, "=")
			if !engine || !ok || strings.TrimSpace(key) != "hooks_dir" {
				continue
			}
			inside, line, dirs = true, value, nil
		}
		for i, part := range strings.Split(line, `"`) {
			if i%2 == 1 && path.IsAbs(part) {
				dirs = append(dirs, part)
			}
		}
		inside = !strings.Contains(line, "]")
	}
	return dirs
}
