// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Docker is a private dockerd, with a containerd of its own. Its containers have no network but the host's or none.
type Docker struct{ *box }

// UpDocker starts one in a directory that must not exist or be empty. The config is a daemon.json's; it may be nil. On an error
// nothing is left.
func UpDocker(ctx context.Context, dir string, config map[string]any) (*Docker, error) {
	b, err := newBox(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("start a private docker: %w", err)
	}
	d := &Docker{b}
	if err = os.Mkdir(d.ConfigDir(), 0o755); err == nil {
		err = d.configure(config)
	}
	if err == nil {
		err = d.standIn(ctx)
	}
	if err == nil {
		err = d.serve(ctx, d.Socket(), "dockerd", "--config-file", filepath.Join(d.ConfigDir(), "daemon.json"), "--host", "unix://"+d.Socket(),
			"--data-root", d.path("root"), "--exec-root", d.path("exec"), "--pidfile", d.path("pid"),
			"--iptables=false", "--ip-forward=false", "--bridge=none",
			"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/"+d.parent)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a private docker in %s: %w", dir, err), d.Down())
	}
	return d, nil
}

// Socket of the API.
func (d *Docker) Socket() string { return d.path("docker.sock") }

// ConfigDir is /etc/docker for what runs in its namespaces.
func (d *Docker) ConfigDir() string { return d.path("etc") }

// standIn puts ConfigDir where Docker's directory is: besides its configuration dockerd keeps a key there, whatever it is told.
func (d *Docker) standIn(ctx context.Context) error {
	_, err := d.Enter(ctx, "sh", "-c", `if ! [ -d /etc/docker ]; then
	mkdir -p /run/containerd/etc/upper /run/containerd/etc/work
	mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/containerd/etc/upper,workdir=/run/containerd/etc/work /etc
	mkdir /etc/docker
fi
mount --bind "$0" /etc/docker`, d.ConfigDir())
	return err
}

func (d *Docker) configure(config map[string]any) error {
	if config == nil {
		config = map[string]any{}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("configure docker: %w", err)
	}
	return os.WriteFile(filepath.Join(d.ConfigDir(), "daemon.json"), text, 0o600)
}

// Reload is `systemctl reload docker`.
func (d *Docker) Reload() error { return d.signal(unix.SIGHUP) }

// Run docker's client to its end.
func (d *Docker) Run(ctx context.Context, args ...string) (string, error) {
	return d.Enter(ctx, append([]string{"docker", "--host", "unix://" + d.Socket()}, args...)...)
}

// Down removes everything: containers, processes, mounts, cgroups, files.
func (d *Docker) Down() error {
	if d.daemon.alive() {
		ctx, cancel := context.WithTimeout(context.Background(), rightToBack)
		defer cancel()
		ids, err := d.Run(ctx, "ps", "--all", "--quiet")
		if err == nil && ids != "" {
			_, err = d.Run(ctx, append([]string{"rm", "--force"}, strings.Fields(ids)...)...)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "testbed: %v\n", err) // what it left is killed and removed
		}
	}
	return d.down()
}
