// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"path"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

// anyPort tells whether a --publish leaves the host's port to chance: "80", "127.0.0.1::80".
func anyPort(text string) bool {
	if i := strings.LastIndex(text, "]"); i >= 0 {
		text = text[i+1:]
	}
	parts := strings.Split(text, ":")
	if len(parts) < 2 {
		return true
	}
	host := parts[len(parts)-2]
	return host == "" || host == "0"
}

// mounted is what is at a destination, and whether anything is.
func (e *editor) mounted(destination string) (source, volume string, ok bool) {
	for _, m := range e.in.Mounts {
		if m.Destination == path.Clean(destination) {
			return m.Source, m.Name, true
		}
	}
	return "", "", false
}

// replaced tells whether something else is to be mounted there.
func (e *editor) replaced(destination string) bool {
	return slices.ContainsFunc(e.changes.Mounts, func(m engine.Mount) bool {
		return path.Clean(m.Destination) == path.Clean(destination)
	})
}

// volume [SOURCE:]DESTINATION[:OPTIONS]. A source that begins with a dot is a path from where the command was typed.
func (e *editor) volume(text string) {
	parts := strings.Split(text, ":")
	if len(parts) == 1 {
		return // anonymous, see there
	}
	if e.replaced(parts[1]) {
		return
	}
	if strings.HasPrefix(parts[0], ".") {
		source, volume, ok := e.mounted(parts[1])
		if !ok || volume != "" {
			e.problem("--volume names a relative path: %s", printable(text))
			return
		}
		parts[0] = source
	}
	e.add("volume", strings.Join(parts, ":"))
}

// mount type=…,source=…,destination=…. Values in quotation marks are left as they are, and compared afterwards.
func (e *editor) mount(text string) {
	if strings.ContainsAny(text, `"`) {
		e.add("mount", text)
		return
	}
	fields := strings.Split(text, ",")
	kind, destination, at := "volume", "", -1
	for i, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "type":
			kind = value
		case "dst", "dest", "destination", "target":
			destination = value
		case "src", "source":
			at = i
		}
	}
	if e.replaced(destination) {
		return
	}
	source, volume, ok := e.mounted(destination)
	switch {
	case kind == "volume" && at < 0 && ok && volume != "":
		fields = append(fields, "source="+volume)
	case kind == "bind" && at >= 0:
		key, value, _ := strings.Cut(fields[at], "=")
		if strings.HasPrefix(value, "/") {
			break
		}
		if !ok || volume != "" {
			e.problem("--mount names a relative path: %s", printable(text))
			return
		}
		fields[at] = key + "=" + source
	}
	e.add("mount", strings.Join(fields, ","))
}

// anonymous volumes have the service's data: its successor gets them, and no new ones, whether the command line or the image
// asked for them.
func (e *editor) anonymous() {
	for _, m := range e.in.Mounts {
		if m.Type != "volume" || !sockethttp.Anonymous(m.Name) || e.replaced(m.Destination) || e.given(m.Name, m.Destination) {
			continue
		}
		options := []string{"rw"}
		if !m.RW {
			options[0] = "ro"
		}
		for _, o := range m.Options { // an image's volumes have other defaults than a command line's
			if contains([]string{"exec", "noexec", "suid", "dev"}, o) {
				options = append(options, o)
			}
		}
		text := m.Name + ":" + m.Destination + ":" + strings.Join(options, ",")
		if strings.Contains(m.Destination, ":") {
			e.problem("a volume is mounted at %s, which --volume cannot say", printable(m.Destination))
			continue
		}
		e.add("volume", text)
	}
}

// given tells whether an option mounts this volume there already.
func (e *editor) given(volume, destination string) bool {
	return slices.ContainsFunc(e.out, func(o setting) bool {
		return o.name == "volume" && (strings.HasPrefix(o.text, volume+":"+destination+":") || o.text == volume+":"+destination) ||
			o.name == "mount" && strings.Contains(o.text, volume)
	})
}

// besides mounts what the changes ask for.
func (e *editor) besides(m engine.Mount) {
	if strings.ContainsAny(m.Source+m.Volume+m.Destination, ",\"\n") || !path.IsAbs(m.Destination) || m.Volume == "" && !path.IsAbs(m.Source) {
		e.problem("cannot mount %s at %s: absolute paths without commas and quotation marks are needed", printable(m.Source+m.Volume), printable(m.Destination))
		return
	}
	text := "type=bind,source=" + m.Source
	if m.Volume != "" {
		text = "type=volume,source=" + m.Volume
	}
	text += ",destination=" + m.Destination
	if m.ReadOnly {
		text += ",ro=true"
	}
	e.add("mount", text)
}
