// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/workload"
)

// maxDocker bounds Docker's own file about a container: its configuration and the container's, some ten KB.
const maxDocker = 16 << 20

// dockerFile is what is read of config.v2.json.
type dockerFile struct {
	ID             string
	Name           string // "/web"
	Image          string // "sha256:…" of the image's configuration
	SeccompProfile string // the profile itself, "unconfined" or ""
	Config         struct {
		Image      string
		Labels     map[string]string
		StopSignal string
	}
}

// dockerRoot is Docker's directory ("/var/lib/docker"), found through the files that Docker mounts into every container:
// ROOT/containers/ID/hostname. With --network container:OTHER they are the other's. It is empty for containers of
// other engines.
func dockerRoot(spec *specs.Spec) string {
	for _, m := range spec.Mounts {
		if !slices.Contains([]string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}, m.Destination) {
			continue
		}
		dir, file := path.Split(path.Clean(m.Source))
		containers, id := path.Split(path.Clean(dir))
		root, name := path.Split(path.Clean(containers))
		if file == path.Base(m.Destination) && name == "containers" && len(id) == 64 && path.IsAbs(root) {
			return path.Clean(root)
		}
	}
	return ""
}

// addDockerImage reads what Docker has written of the container, if it is Docker's. The identity of the image is that of its
// configuration: Docker keeps a manifest's digest only of images that it has pulled.
func addDockerImage(c *engine.Container, spec *specs.Spec) error {
	root := dockerRoot(spec)
	if root == "" || len(c.ID) != 64 || strings.Trim(c.ID, "0123456789abcdef") != "" {
		return nil
	}
	data, err := readUnder(root, "containers/"+c.ID+"/config.v2.json", maxDocker)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into Docker's storage: %w", err)
	}
	var in dockerFile
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("understand Docker's config.v2.json: %w", err)
	}
	if in.ID != c.ID {
		return errors.New("the config.v2.json is of another container")
	}
	c.Engine = "docker"
	if name := strings.TrimPrefix(in.Name, "/"); name != "" {
		c.Name = workload.Printable(name, 200)
	}
	if in.Config.Image != "" {
		c.Workload.Image = workload.Printable(in.Config.Image, 200)
	}
	if strings.HasPrefix(in.Image, "sha256:") && len(in.Image) == len("sha256:")+64 {
		c.Workload.Digest, c.ImageID = in.Image, strings.TrimPrefix(in.Image, "sha256:")
	}
	if c.StopSignal == 0 {
		c.StopSignal = engine.ParseSignal(in.Config.StopSignal)
	}
	if asked := in.SeccompProfile; asked != "" && asked != "unconfined" && c.Seccomp != engine.SeccompUnconfined {
		c.Seccomp = "" // Docker's client sends the profile itself: there is no path to tell
	}
	for key, value := range in.Config.Labels {
		if c.Labels == nil {
			c.Labels = make(map[string]string, len(in.Config.Labels))
		}
		c.Labels[workload.Printable(key, 200)] = workload.Printable(value, 200)
	}
	return nil
}
