// SPDX-License-Identifier: Apache-2.0

package likeness

import (
	"slices"
	"strings"
)

// mountOptions are sets, which engines write in the order they were said.
func mountOptions(doc map[string]any) {
	list, _ := doc["Mounts"].([]any)
	for _, v := range list {
		m, _ := v.(map[string]any)
		if options, ok := m["Options"].([]any); ok {
			slices.SortFunc(options, func(a, b any) int { return strings.Compare(text(a), text(b)) })
		}
	}
	host, _ := doc["HostConfig"].(map[string]any)
	anonymous(list, host)
	binds, _ := host["Binds"].([]any)
	for i, v := range binds {
		s, _ := v.(string)
		if at := strings.LastIndex(s, ":"); at >= 0 && !strings.Contains(s[at:], "/") {
			options := strings.Split(s[at+1:], ",")
			slices.Sort(options)
			binds[i] = s[:at+1] + strings.Join(options, ",")
		}
	}
}

// anonymous volumes are made by an option, or an image, and handed on by another option: what is mounted counts, and not how it
// was said. Docker notes a mode that comes from how it was said, too.
func anonymous(mounts []any, host map[string]any) {
	for _, v := range mounts {
		m, _ := v.(map[string]any)
		destination, _ := m["Destination"].(string)
		if name, _ := m["Name"].(string); len(name) != 64 || m["Type"] != "volume" {
			continue
		}
		delete(m, "Mode")
		for _, of := range []string{"Binds", "Mounts"} {
			if said, ok := host[of].([]any); ok {
				host[of] = slices.DeleteFunc(said, func(v any) bool { return isFor(v, destination) })
			}
		}
	}
}

// ownVolumes of another image, which the first container did not have, are none of the differences.
func ownVolumes(a, b map[string]any) {
	has := make(map[string]bool)
	list, _ := a["Mounts"].([]any)
	for _, v := range list {
		m, _ := v.(map[string]any)
		has[text(m["Destination"])] = true
	}
	list, _ = b["Mounts"].([]any)
	b["Mounts"] = slices.DeleteFunc(list, func(v any) bool {
		m, _ := v.(map[string]any)
		destination, _ := m["Destination"].(string)
		name, _ := m["Name"].(string)
		if has[destination] || len(name) != 64 {
			return false
		}
		host, _ := b["HostConfig"].(map[string]any)
		if binds, ok := host["Binds"].([]any); ok {
			host["Binds"] = slices.DeleteFunc(binds, func(v any) bool { return isFor(v, destination) })
		}
		return true
	})
}
