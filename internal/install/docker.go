// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/jsonedit"
)

const (
	dockerConfig  = "/etc/docker/daemon.json"
	dockerRuntime = "whittle" // the name of the runtime
	reloadDocker  = "make Docker read it: sudo systemctl reload docker (running containers are not touched)"
)

// docker gets a runtime that is the default one: it has no hooks.
func (o Options) docker() (plan, error) {
	now, err := o.readConfig(dockerConfig)
	if err != nil {
		return plan{}, err
	}
	real, err := o.dockersRuntime(now.contents)
	if err != nil {
		return plan{}, fmt.Errorf("understand %s: %w", dockerConfig, err)
	}
	p := plan{
		targets: o.wrapper(real),
		installed: []string{
			reloadDocker,
			"containers made before keep the runtime that they were made with: `docker run` or `docker compose up --force-recreate` makes new ones",
		},
		uninstalled: []string{reloadDocker},
	}
	config := target{path: dockerConfig, edit: withDefaultRuntime, undo: withoutRuntime}
	if o.leaving {
		if err := o.leaveDocker(&p, &config, now.contents, real); err != nil {
			return plan{}, err
		}
	}
	p.targets = append(p.targets, config)
	return p, nil
}

// leaveDocker sees to it that no container fails to start for want of the runtime.
func (o Options) leaveDocker(p *plan, config *target, now []byte, real string) error {
	name, err := stringIn(now, "default-runtime")
	if err == nil && name == dockerRuntime && o.Root == "" && dockerRuns() {
		// At a reload Docker takes a default runtime that it is told, and keeps the one that it has when it is told none. So
		// it is told the former one, and has the wrapper until then.
		p.targets, p.unfinished, config.inexact = nil, true, true
		config.undo = func(now, was []byte) ([]byte, error) { return withRuntimeAsAlias(now, was, real) }
		p.uninstalled = append(p.uninstalled, "then run this again: it removes the rest")
		return nil
	}
	users, err := o.madeWithWrapper(now)
	if err != nil || len(users) == 0 {
		return err
	}
	// A container keeps the name of its runtime. Without that name it would never start again.
	p.unfinished, config.inexact = true, true
	config.undo = func(now, was []byte) ([]byte, error) { return withRuntimeAsAlias(now, was, real) }
	p.uninstalled = append(p.uninstalled, fmt.Sprintf("the runtime %s stays, as another name for %s, for %d containers that were made with it: "+
		"remove or recreate them (%s), and run this again", dockerRuntime, real, len(users), strings.Join(users[:min(len(users), 5)], ", ")))
	return nil
}

// dockerRuns tells whether this machine has a dockerd, whatever it is configured by.
func dockerRuns() bool {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return true // the pattern is right
	}
	return slices.ContainsFunc(names, func(name string) bool {
		text, err := os.ReadFile(name)
		return err == nil && strings.TrimSpace(string(text)) == "dockerd"
	})
}

// dockersRuntime is what Docker uses when nothing is asked for, without Whittle.
func (o Options) dockersRuntime(config []byte) (string, error) {
	name, err := stringIn(config, "default-runtime")
	if err != nil {
		return "", err
	}
	switch {
	case name == dockerRuntime, o.leaving:
		real, err := o.wrapped()
		if real == "" {
			real = "runc"
		}
		return real, err
	case name == "", name == "runc":
		return "runc", nil
	}
	own, err := jsonedit.Get(config, "runtimes", name)
	if err != nil || own == nil {
		return "", errors.Join(fmt.Errorf("default-runtime %q has no entry in runtimes", name), err)
	}
	var r struct {
		Path string
		Args []string `json:"runtimeArgs"`
		Type string   `json:"runtimeType"`
	}
	if err := json.Unmarshal(own, &r); err != nil {
		return "", err
	}
	if r.Path == "" || r.Type != "" || len(r.Args) > 0 {
		err := fmt.Errorf("the default runtime %q is no plain executable", name)
		return "", hint.Add(err, "make a script of it that takes no arguments of its own, and name that as its path")
	}
	return r.Path, nil
}

func stringIn(config []byte, keys ...string) (s string, err error) {
	if len(config) == 0 {
		return "", nil
	}
	value, err := jsonedit.Get(config, keys...)
	if err != nil || value == nil {
		return "", err
	}
	return s, json.Unmarshal(value, &s)
}

func withDefaultRuntime(config []byte) ([]byte, error) {
	if len(strings.TrimSpace(string(config))) == 0 {
		config = fmt.Appendf(nil, "{\n  \"default-runtime\": %q,\n  \"runtimes\": {}\n}\n", dockerRuntime)
	}
	return setRuntime(config, dockerRuntime, wrapperPath("docker"))
}

func setRuntime(config []byte, byDefault, executable string) ([]byte, error) {
	set := func(value any, keys ...string) error {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		now, err := jsonedit.Get(config, keys...)
		if err == nil && string(now) != string(text) {
			config, err = jsonedit.Set(config, text, keys...)
		}
		return err
	}
	err := set(map[string]string{"path": executable}, "runtimes", dockerRuntime)
	if err == nil && byDefault != "" {
		err = set(byDefault, "default-runtime")
	}
	return config, err
}

// withoutRuntime takes out what withDefaultRuntime put in.
func withoutRuntime(config, was []byte) ([]byte, error) {
	config, err := withFormerDefault(config, was, "")
	if err == nil {
		config, err = jsonedit.Remove(config, "runtimes", dockerRuntime)
	}
	if err != nil {
		return nil, err
	}
	runtimes, err := jsonedit.Get(config, "runtimes")
	if err != nil {
		return nil, err
	}
	if strings.Join(strings.Fields(string(runtimes)), "") == "{}" {
		return jsonedit.Remove(config, "runtimes")
	}
	return config, nil
}

// withFormerDefault names the runtime that was the default before; where none was named, the given one, or none.
func withFormerDefault(config, was []byte, none string) ([]byte, error) {
	name, err := stringIn(config, "default-runtime")
	if err != nil || name != dockerRuntime {
		return config, err
	}
	former, err := stringIn(was, "default-runtime")
	if err != nil || former == "" || former == dockerRuntime {
		former = none
	}
	if former == "" {
		return jsonedit.Remove(config, "default-runtime")
	}
	text, err := json.Marshal(former)
	if err != nil {
		return nil, err
	}
	return jsonedit.Set(config, text, "default-runtime")
}

func withRuntimeAsAlias(config, was []byte, real string) ([]byte, error) {
	config, err := withFormerDefault(config, was, "runc")
	if err != nil {
		return nil, err
	}
	return setRuntime(config, "", real)
}

// madeWithWrapper are the names of Docker's containers that ask for the runtime by its name.
func (o Options) madeWithWrapper(config []byte) (names []string, err error) {
	root, err := stringIn(config, "data-root")
	if err != nil {
		return nil, err
	}
	if root == "" {
		root = "/var/lib/docker"
	}
	files, err := filepath.Glob(o.below(path.Join(root, "containers", "*", "hostconfig.json")))
	if err != nil {
		return nil, fmt.Errorf("look for Docker's containers: %w", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("look for Docker's containers: %w", err)
		}
		var host struct{ Runtime string }
		if json.Unmarshal(text, &host) == nil && host.Runtime == dockerRuntime {
			id := path.Base(path.Dir(name))
			names = append(names, id[:min(len(id), 12)])
		}
	}
	return names, nil
}
