// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Annotations that engines write into config.json.
const (
	managerKey    = "io.container.manager" // "libpod", "cri-o"
	stopSignalKey = "org.opencontainers.image.stopSignal"
	privilegedKey = "io.podman.annotations.privileged"
	seccompKey    = "io.podman.annotations.seccomp" // "unconfined" or a path, if it was asked for
	createdAtKey  = "io.kubernetes.cri-o.Created"
)

// imageKeys name the image, and nameKeys the container, where the engine is not Podman: containerd's CRI, CRI-O.
var (
	imageKeys = [...]string{"io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "org.opencontainers.image.ref.name"}
	nameKeys  = [...]string{"io.kubernetes.cri.container-name", "io.kubernetes.cri-o.Name"}
)

// Describe finds out everything about the container of a createRuntime hook: its init is there with its cgroup and
// namespaces, and has not run anything of the container. The spec is the bundle's config.json.
//
// It does not ask the engine, which holds the container's lock until the hook has returned.
func Describe(s State) (engine.Container, *specs.Spec, error) {
	// First of all: what is read below belongs to this process only if it is the same one at the end.
	p, err := process.Open(s.Pid)
	if err != nil {
		return engine.Container{}, nil, fmt.Errorf("describe container %s: %w", s.ID, err)
	}
	defer p.Close()
	spec, err := readSpec(s.Bundle)
	if err != nil {
		return engine.Container{}, nil, fmt.Errorf("describe container %s: %w", s.ID, err)
	}
	c := fromSpec(s, spec)
	if err := addImage(&c, spec, s.Bundle); err != nil {
		return engine.Container{}, nil, fmt.Errorf("describe container %s: %w", s.ID, err)
	}
	if c.CgroupID, err = ownCgroup(p); err != nil {
		return engine.Container{}, nil, fmt.Errorf("describe container %s: %w", s.ID, err)
	}
	if c.MountNS, err = p.MountNS(); err != nil {
		return engine.Container{}, nil, fmt.Errorf("describe container %s: %w", s.ID, err)
	}
	if err := p.Alive(); err != nil {
		return engine.Container{}, nil, fmt.Errorf("describe container %s: %w", s.ID, err)
	}
	c.PID = s.Pid
	return c, spec, nil
}

// ownCgroup is 0 where the container was left in the cgroup of its runtime (crun's --cgroups=disabled, rootless runc on some
// hosts): what else runs there, which may be a whole login session, is not the container.
func ownCgroup(p *process.Process) (uint64, error) {
	hook, err := process.Open(os.Getpid())
	if err != nil {
		return 0, err
	}
	defer hook.Close()
	around, err := hook.CgroupID()
	if err != nil {
		return 0, err
	}
	id, err := p.CgroupID()
	if err != nil || id == around {
		return 0, err
	}
	return id, nil
}

// fromSpec takes what the bundle itself says. The State's annotations are a copy of the spec's.
func fromSpec(s State, spec *specs.Spec) engine.Container {
	annotations := maps.Clone(s.Annotations)
	if annotations == nil {
		annotations = make(map[string]string)
	}
	maps.Copy(annotations, spec.Annotations)
	c := engine.Container{
		Container: workload.Container{
			Engine: manager(annotations),
			ID:     s.ID,
			Name:   workload.Printable(first(annotations, nameKeys[:]), 200),
			Workload: workload.Workload{
				Image:   workload.Printable(first(annotations, imageKeys[:]), 200),
				Command: spec.Process.Args,
			},
		},
		State:           engine.Created,
		StopSignal:      engine.ParseSignal(annotations[stopSignalKey]),
		Seccomp:         seccomp(annotations, spec),
		NoNewPrivileges: spec.Process.NoNewPrivileges,
	}
	if c.Name == "" {
		c.Name = nameOf(s.ID)
	}
	if c.Workload.Image == "" { // a bundle made by hand: its program is all there is to go by
		c.Workload.Image = workload.Printable(path.Base(spec.Process.Args[0]), 200)
	}
	if created, err := time.Parse(time.RFC3339Nano, annotations[createdAtKey]); err == nil {
		c.StartedAt = created
	}
	// Podman keeps labels to itself. What an annotation says to Whittle counts as a label.
	for key, value := range annotations {
		if strings.HasPrefix(strings.TrimPrefix(key, "io."), "whittle.") {
			if c.Labels == nil {
				c.Labels = make(map[string]string)
			}
			c.Labels[workload.Printable(key, 200)] = workload.Printable(value, 200)
		}
	}
	return c
}

// nameOf a container that has none. A digest is told by its beginning; what a person wrote may differ at its end only.
func nameOf(id string) string {
	if len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:12]
	}
	return workload.Printable(id, 64)
}

// manager names the engine that wrote the bundle.
func manager(annotations map[string]string) string {
	switch annotations[managerKey] {
	case "libpod":
		return "podman"
	case "cri-o":
		return "cri-o"
	}
	if annotations["io.kubernetes.cri.container-type"] != "" {
		return "containerd"
	}
	return "oci"
}

func seccomp(annotations map[string]string, spec *specs.Spec) string {
	if spec.Linux == nil || spec.Linux.Seccomp == nil {
		return engine.SeccompUnconfined
	}
	if asked := annotations[seccompKey]; asked != "" && annotations[managerKey] == "libpod" {
		return workload.Printable(asked, 200)
	}
	return engine.SeccompDefault
}

func first(annotations map[string]string, keys []string) string {
	for _, key := range keys {
		if value := annotations[key]; value != "" {
			return value
		}
	}
	return ""
}

// addPodmanImage names the image, which Podman does not do in config.json.
func addPodmanImage(c *engine.Container, bundle string) error {
	graph, err := graphDir(bundle, c.ID)
	if err != nil {
		return err
	}
	stored, err := storedContainer(graph, c.ID)
	if errors.Is(err, errNotStored) { // podman run --rootfs: there is no image
		return nil
	}
	if err != nil {
		return err
	}
	c.ImageID = stored.Image
	if len(stored.Names) > 0 {
		c.Name = workload.Printable(stored.Names[0], 200)
	}
	c.Workload.Image = workload.Printable(stored.imageName(), 200)
	c.Workload.Digest, err = storedDigest(graph, stored.Image)
	return err
}
