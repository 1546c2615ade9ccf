// SPDX-License-Identifier: Apache-2.0

package units

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Quadlets of both, for Podman 4.4 and later: NAME.container and NAME-oracle.container, of which its generator makes the units of
// these names. Type=, the commands and the removal of the container are the generator's.
func (c Containers) Quadlets() ([]File, error) {
	p, err := c.pair()
	if err != nil {
		return nil, err
	}
	if err := p.complete(); err != nil {
		return nil, err
	}
	var out []File
	for _, side := range []struct {
		container Container
		write     func(*writer)
	}{
		{c.Production, p.production},
		{c.Oracle, p.oracle},
	} {
		w := &writer{}
		w.comment(header)
		w.section("Unit")
		side.write(w)
		w.success()
		side.container.quadlet(w)
		if side.container.Name == p.Name {
			p.install(w)
		}
		if w.err != nil {
			return nil, fmt.Errorf("write %s.container: %w", side.container.Name, w.err)
		}
		out = append(out, File{side.container.Name + ".container", w.String()})
	}
	return out, nil
}

// quadlet section of a container. Flags go into PodmanArgs= as they are: the generator knows keys for some of them, and
// which ones depends on its version.
func (c Container) quadlet(w *writer) {
	w.section("Container")
	w.set("ContainerName", c.Name)
	if strings.ContainsAny(c.Image, "%$\"'\\") {
		w.fail(fmt.Errorf("image %q: %w", c.Image, errUnwritable))
		return
	}
	w.set("Image", c.Image)
	seconds := int((c.stopTimeout() + time.Second - 1) / time.Second)
	for _, f := range append([]string{"--stop-timeout=" + strconv.Itoa(seconds)}, c.flags()...) {
		w.list("PodmanArgs", []string{f})
	}
	if len(c.Command) > 0 {
		w.list("Exec", c.Command)
	}
}

// list of words.
func (w *writer) list(key string, list []string) {
	line, err := words(list)
	if err != nil {
		w.fail(fmt.Errorf("%s: %w", key, err))
		return
	}
	w.set(key, line)
}
