// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Containerd is a private one, without its Kubernetes side (CRI).
type Containerd struct{ *box }

// UpContainerd starts one in a directory that must not exist or be empty. On an error nothing is left.
func UpContainerd(ctx context.Context, dir string) (*Containerd, error) {
	b, err := newBox(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("start a private containerd: %w", err)
	}
	c := &Containerd{b}
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		c.path("root"), c.path("state"), c.socket())
	if err = os.WriteFile(c.path("config.toml"), []byte(config), 0o600); err == nil {
		err = c.serve(ctx, c.socket(), "containerd", "--config", c.path("config.toml"))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a private containerd in %s: %w", dir, err), c.Down())
	}
	return c, nil
}

func (c *Containerd) socket() string { return c.path("sock") }

// Ctr runs containerd's client to its end.
func (c *Containerd) Ctr(ctx context.Context, args ...string) (string, error) {
	return c.Enter(ctx, append([]string{"ctr", "--address", c.socket()}, args...)...)
}

// RunArgs are the beginning of `ctr run`: what keeps the cgroups of its containers where Down finds them.
func (c *Containerd) RunArgs(id string) []string {
	return []string{"run", "--cgroup", "/" + c.parent + "/" + id}
}

// Remove a container and what runs in it.
func (c *Containerd) Remove(ctx context.Context, id string) error {
	_, err := c.Ctr(ctx, "task", "rm", "--force", id)
	if err != nil && !strings.Contains(err.Error(), "not found") {
		return err
	}
	_, err = c.Ctr(ctx, "container", "rm", id)
	return err
}

// Kill the daemon and nothing that it has started.
func (c *Containerd) Kill() error { return c.signal(unix.SIGKILL) }

// Down removes everything: containers, processes, mounts, cgroups, files.
func (c *Containerd) Down() error {
	if c.daemon.alive() {
		ctx, cancel := context.WithTimeout(context.Background(), rightToBack)
		defer cancel()
		ids, err := c.Ctr(ctx, "container", "ls", "--quiet")
		for id := range strings.FieldsSeq(ids) {
			err = errors.Join(err, c.Remove(ctx, id))
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "testbed: %v\n", err) // what it left is killed and removed
		}
	}
	return c.down()
}
