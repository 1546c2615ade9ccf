// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

const maxProfile = 1 << 20 // bytes; Docker's own has 13 KB

// anonymous volumes have the service's data: its successor gets them, and no new ones.
func anonymous(in inspection, host object) {
	binds := host.list("Binds")
	for _, m := range in.Mounts {
		if m.Type != "volume" || !sockethttp.Anonymous(m.Name) {
			continue
		}
		at := slices.IndexFunc(host.list("Mounts"), func(v any) bool { return isFor(v, m.Destination) })
		switch {
		case at >= 0:
			mount, _ := host.list("Mounts")[at].(map[string]any)
			mount["Source"] = m.Name
		case !slices.ContainsFunc(binds, func(v any) bool { return isFor(v, m.Destination) }):
			bind := m.Name + ":" + m.Destination
			if !m.RW {
				bind += ":ro"
			}
			binds = append(binds, bind)
		}
	}
	host["Binds"] = binds
}

// isFor tells whether "source:destination[:options]", or a mount, is for this destination.
func isFor(v any, destination string) bool {
	if m, ok := v.(map[string]any); ok {
		target, _ := m["Target"].(string)
		return path.Clean(target) == path.Clean(destination)
	}
	s, _ := v.(string)
	parts := strings.Split(s, ":")
	return len(parts) > 1 && path.Clean(parts[1]) == path.Clean(destination)
}

// change what is asked to be different.
func change(config, host object, c engine.Changes) error {
	if c.Seccomp != "" {
		profile, err := seccompOption(c.Seccomp)
		if err != nil {
			return err
		}
		host["SecurityOpt"] = append(slices.DeleteFunc(host.list("SecurityOpt"), func(v any) bool {
			s, _ := v.(string)
			return strings.HasPrefix(s, "seccomp=") || strings.HasPrefix(s, "seccomp:")
		}), profile)
	}
	if c.Command != nil {
		config["Cmd"] = c.Command
	}
	if c.Entrypoint != nil {
		config["Entrypoint"] = *c.Entrypoint
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		config["Env"] = append(slices.DeleteFunc(config.list("Env"), func(v any) bool {
			s, _ := v.(string)
			return strings.HasPrefix(s, name+"=")
		}), name+"="+c.Env[name])
	}
	if c.NoRestart {
		host["RestartPolicy"] = map[string]any{"Name": "no"}
	}
	if len(c.Labels) > 0 && config.object("Labels") == nil {
		config["Labels"] = map[string]any{}
	}
	for key, value := range c.Labels {
		config.object("Labels")[key] = value
	}
	for _, m := range c.Mounts {
		if !path.IsAbs(m.Destination) || m.Volume == "" && !path.IsAbs(m.Source) {
			return fmt.Errorf("cannot mount %s at %s: absolute paths are needed", printable(m.Source+m.Volume), printable(m.Destination))
		}
		mount := map[string]any{"Type": "bind", "Source": m.Source, "Target": m.Destination, "ReadOnly": m.ReadOnly}
		if m.Volume != "" {
			mount["Type"], mount["Source"] = "volume", m.Volume
		}
		there := func(v any) bool { return isFor(v, m.Destination) }
		host["Binds"] = slices.DeleteFunc(host.list("Binds"), there)
		host["Mounts"] = append(slices.DeleteFunc(host.list("Mounts"), there), any(mount))
	}
	return nil
}

// seccompOption: Docker wants the profile itself, not its path.
func seccompOption(name string) (string, error) {
	if name == engine.SeccompUnconfined {
		return "seccomp=" + name, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read the seccomp profile: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return "", fmt.Errorf("read the seccomp profile: %w", err)
	}
	var out bytes.Buffer
	if len(text) > maxProfile {
		return "", fmt.Errorf("the seccomp profile %s has more than %d bytes", printable(name), maxProfile)
	}
	if err := json.Compact(&out, text); err != nil {
		return "", fmt.Errorf("the seccomp profile %s: %w", printable(name), err)
	}
	return "seccomp=" + out.String(), nil
}
