// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/jsonedit"
)

// ModeKey is the label, or where an engine keeps labels to itself the annotation, by which somebody who starts a container tells
// Whittle what to do with it, and LongModeKey what a program writes; ModeOff is to leave it alone.
const (
	ModeKey     = "whittle.mode"
	LongModeKey = "io.whittle.mode"
	ModeOff     = "off"
)

// Draft is a container before it is created: all there is of it is a config.json.
type Draft struct {
	// Container has no process, cgroup or namespace yet.
	Container   engine.Container
	Annotations map[string]string
	// Profile is the seccomp section as it was written; nil when there is none.
	Profile json.RawMessage
	Runtime engine.Runtime
}

// Off tells whether whoever starts the container wants Whittle to leave it alone.
func (d Draft) Off() bool {
	return d.Container.Labels[ModeKey] == ModeOff || d.Container.Labels[LongModeKey] == ModeOff
}

// MakeDraft describes the container of a config.json. Without an id it must be Podman's, which shows it in the paths.
//
// Like Describe it does not ask the engine, which holds the container's lock; and it calls the workload what Describe will.
func MakeDraft(config []byte, id string) (Draft, error) {
	spec, err := parseSpec(config)
	if err != nil {
		return Draft{}, fmt.Errorf("understand config.json: %w", err)
	}
	if id == "" {
		if id = podmanID(spec); id == "" {
			return Draft{}, errors.New("config.json does not tell the container's id")
		}
	}
	if !validID(id) {
		return Draft{}, errors.New("the container's id is unusable")
	}
	var s State
	s.ID = id
	d := Draft{Container: fromSpec(s, spec), Annotations: spec.Annotations}
	if d.Profile, err = jsonedit.Get(config, "linux", "seccomp"); err != nil {
		return Draft{}, fmt.Errorf("read the seccomp section: %w", err)
	}
	if err := addImage(&d.Container, spec, podmanGraph(spec, id)); err != nil {
		return Draft{}, fmt.Errorf("describe container %s: %w", id, err)
	}
	return d, nil
}

// WithProfile is a config.json with another seccomp section; every other byte is as it was.
func WithProfile(config []byte, profile json.RawMessage) ([]byte, error) {
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(profile, &p); err != nil || p.DefaultAction == "" {
		return nil, errors.New("what the agent answered is no seccomp section")
	}
	out, err := jsonedit.Set(config, profile, "linux", "seccomp")
	if err != nil {
		return nil, fmt.Errorf("change config.json: %w", err)
	}
	return out, nil
}

var (
	// "/libpod_parent/libpod-ID", "machine.slice:libpod:ID"
	inCgroup = regexp.MustCompile(`libpod[-:]([0-9a-f]{64})$`)
	inMount  = regexp.MustCompile(`-containers/([0-9a-f]{64})/userdata/`)
)

// podmanID finds the id that Podman gave a container. Without a cgroup (--cgroups=disabled) it is in the sources of its mounts.
func podmanID(spec *specs.Spec) string {
	if manager(spec.Annotations) != "podman" {
		return ""
	}
	if spec.Linux != nil {
		if found := inCgroup.FindStringSubmatch(spec.Linux.CgroupsPath); found != nil {
			return found[1]
		}
	}
	id := ""
	for _, m := range spec.Mounts {
		found := inMount.FindStringSubmatch(m.Source)
		if found == nil {
			continue
		}
		if id != "" && id != found[1] { // another container's files: --network container:OTHER
			return ""
		}
		id = found[1]
	}
	return id
}

// podmanGraph is where Podman stores a container, as the bundle would tell: GRAPHROOT/DRIVER-containers/ID/userdata. It is
// not known before the bundle is written, so it is taken from the root file system: GRAPHROOT/overlay/LAYER/merged,
// GRAPHROOT/vfs/dir/LAYER. It is empty for a root file system that is no image's.
func podmanGraph(spec *specs.Spec, id string) string {
	if manager(spec.Annotations) != "podman" || spec.Root == nil || !path.IsAbs(spec.Root.Path) {
		return ""
	}
	parts := strings.Split(path.Clean(spec.Root.Path), "/")
	if len(parts) < 5 {
		return ""
	}
	n := len(parts)
	driver, last, middle := parts[n-3], parts[n-1], parts[n-2]
	switch {
	case driver == "overlay" && last == "merged":
	case driver == "vfs" && middle == "dir", driver == "btrfs" && middle == "subvolumes", driver == "zfs" && middle == "graph":
	default:
		return ""
	}
	return path.Join("/", path.Join(parts[:n-3]...), driver+"-containers", id, "userdata")
}

// addImage names the image, which neither Podman nor Docker does in config.json. The bundle is Podman's; it may be empty.
func addImage(c *engine.Container, spec *specs.Spec, bundle string) error {
	if c.Engine == "podman" {
		if bundle == "" {
			return nil
		}
		return addPodmanImage(c, bundle)
	}
	return addDockerImage(c, spec)
}
