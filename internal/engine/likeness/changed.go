// SPDX-License-Identifier: Apache-2.0

package likeness

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
)

// changed checks that what was asked to be different is as it was asked, and takes it out of both documents.
func changed(a, b map[string]any, c engine.Changes) (out []string) {
	if c.Seccomp != "" {
		if seccomp(a, b) == 0 {
			out = append(out, "the seccomp profile was not set")
		}
	}
	if c.Command != nil || c.Entrypoint != nil {
		out = append(out, command(b, c)...)
		for _, doc := range []map[string]any{a, b} {
			delete(doc, "Path")
			delete(doc, "Args")
			config, _ := doc["Config"].(map[string]any)
			delete(config, "Cmd")
			delete(config, "Entrypoint")
		}
	}
	if c.NoRestart {
		out = append(out, restart(a, b)...)
	}
	out = append(out, environment(a, b, c.Env)...)
	out = append(out, labels(a, b, c.Labels)...)
	return append(out, mounts(a, b, c.Mounts)...)
}

// seccomp takes the profiles out; it returns how many the second had.
func seccomp(a, b map[string]any) (had int) {
	for _, doc := range []map[string]any{a, b} {
		host, _ := doc["HostConfig"].(map[string]any)
		options, _ := host["SecurityOpt"].([]any)
		before := len(options)
		options = slices.DeleteFunc(options, func(v any) bool {
			s, _ := v.(string)
			return strings.HasPrefix(s, "seccomp=") || strings.HasPrefix(s, "seccomp:")
		})
		if host != nil {
			host["SecurityOpt"] = options
		}
		had = before - len(options)
	}
	return had
}

// restart takes the policies out; the second is to have none.
func restart(a, b map[string]any) (out []string) {
	for i, doc := range []map[string]any{a, b} {
		host, _ := doc["HostConfig"].(map[string]any)
		policy, _ := host["RestartPolicy"].(map[string]any)
		if name, _ := policy["Name"].(string); i == 1 && name != "" && name != "no" {
			out = append(out, "it has a restart policy still: "+show(name))
		}
		delete(host, "RestartPolicy")
	}
	return out
}

// command: what runs ends with it, whatever the entrypoint.
func command(b map[string]any, c engine.Changes) []string {
	path, _ := b["Path"].(string)
	runs := []string{path}
	args, _ := b["Args"].([]any)
	for _, arg := range args {
		s, _ := arg.(string)
		runs = append(runs, s)
	}
	want := c.Command
	if c.Entrypoint != nil && c.Command != nil {
		if all := slices.Concat(*c.Entrypoint, want); !slices.Equal(runs, all) {
			return []string{fmt.Sprintf("it runs %s, not %s", show(strings.Join(runs, " ")), show(strings.Join(all, " ")))}
		}
		return nil
	}
	if c.Entrypoint != nil && (len(runs) < len(*c.Entrypoint) || !slices.Equal(runs[:len(*c.Entrypoint)], *c.Entrypoint)) {
		return []string{fmt.Sprintf("it runs %s, not %s", show(strings.Join(runs, " ")), show(strings.Join(*c.Entrypoint, " ")))}
	}
	if len(runs) < len(want) || !slices.Equal(runs[len(runs)-len(want):], want) {
		return []string{fmt.Sprintf("it runs %s, not %s", show(strings.Join(runs, " ")), show(strings.Join(want, " ")))}
	}
	return nil
}

func environment(a, b map[string]any, want map[string]string) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		for i, doc := range []map[string]any{a, b} {
			config, _ := doc["Config"].(map[string]any)
			env, _ := config["Env"].([]any)
			found := i == 0 // the first one need not have it
			env = slices.DeleteFunc(env, func(v any) bool {
				s, _ := v.(string)
				value, ours := strings.CutPrefix(s, name+"=")
				found = found || ours && value == want[name]
				return ours
			})
			if config != nil {
				config["Env"] = env
			}
			if !found {
				out = append(out, fmt.Sprintf("the variable %s was not set", show(name)))
			}
		}
	}
	return out
}

func labels(a, b map[string]any, want map[string]string) (out []string) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		config, _ := b["Config"].(map[string]any)
		has, _ := config["Labels"].(map[string]any)
		if has[key] != want[key] {
			out = append(out, fmt.Sprintf("the label %s was not set", show(key)))
		}
		for _, doc := range []map[string]any{a, b} {
			config, _ := doc["Config"].(map[string]any)
			has, _ := config["Labels"].(map[string]any)
			delete(has, key)
		}
	}
	return out
}

// mounts that were asked for are in the second document's list, which is what both engines make of all they are told.
func mounts(a, b map[string]any, want []engine.Mount) (out []string) {
	for _, m := range want {
		found := false
		for i, doc := range []map[string]any{a, b} {
			list, _ := doc["Mounts"].([]any)
			doc["Mounts"] = slices.DeleteFunc(list, func(v any) bool {
				has, _ := v.(map[string]any)
				ours := has["Destination"] == m.Destination
				found = found || i == 1 && ours && isLike(has, m)
				return ours
			})
			host, _ := doc["HostConfig"].(map[string]any)
			for _, of := range []string{"Binds", "Mounts"} {
				if said, ok := host[of].([]any); ok {
					host[of] = slices.DeleteFunc(said, func(v any) bool { return isFor(v, m.Destination) })
				}
			}
		}
		if !found {
			out = append(out, fmt.Sprintf("nothing like what was asked for is mounted at %s", show(m.Destination)))
		}
	}
	return out
}

func isLike(has map[string]any, m engine.Mount) bool {
	if has["RW"] == m.ReadOnly {
		return false
	}
	if m.Volume != "" {
		return has["Name"] == m.Volume
	}
	return has["Source"] == m.Source
}

// isFor tells whether "source:destination[:options]", or a mount in Docker's words, is for this destination.
func isFor(v any, destination string) bool {
	if m, ok := v.(map[string]any); ok {
		return m["Target"] == destination
	}
	s, _ := v.(string)
	return strings.HasSuffix(s, ":"+destination) || strings.Contains(s, ":"+destination+":")
}
