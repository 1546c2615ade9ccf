// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// box is a mount and a network namespace with a daemon in it, whose files are below one directory.
type box struct {
	dir    string
	holder Proc
	daemon Proc
	parent string // the cgroup below which the containers' are
}

// newBox in a directory that is empty or not there.
func newBox(ctx context.Context, dir string) (*box, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o711); err != nil && !os.IsExist(err) {
		return nil, err
	}
	v2, err := Hybrid()
	if err != nil {
		return nil, err
	}
	// /run/containerd is where shims put their sockets, whatever they are told. See hold for the rest.
	script := `if [ -n "$1" ]; then mount --bind /dev/null "$1/cgroup.controllers" || exit 1; fi
mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd && ip link set lo up || exit 1
setsid sleep infinity </dev/null >/dev/null 2>&1 & echo $!`
	b := &box{dir: dir, parent: "whittle-bed-" + filepath.Base(dir)}
	b.holder, err = background(exec.CommandContext(ctx, "unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script, "sh", v2))
	if err != nil {
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	return b, nil
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

// serve starts the daemon and waits until its socket answers.
func (b *box) serve(ctx context.Context, socket string, command ...string) error {
	script := `log=$0; setsid nsenter --target "$1" --mount --net -- sh -c 'shift; exec "$@"' sh "$@" </dev/null >"$log" 2>&1 & echo $!`
	args := append([]string{"-c", script, b.path("log"), strconv.Itoa(b.holder.PID)}, command...)
	var err error
	if b.daemon, err = background(exec.CommandContext(ctx, "sh", args...)); err != nil {
		return fmt.Errorf("start %s: %w", command[0], err)
	}
	ctx, cancel := context.WithTimeout(ctx, socketWait)
	defer cancel()
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn.Close()
		}
		if !b.daemon.alive() || ctx.Err() != nil {
			log, _ := os.ReadFile(b.path("log"))
			return fmt.Errorf("start %s: %w: %s", command[0], err, log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// signal the daemon.
func (b *box) signal(s unix.Signal) error { return unix.Kill(b.daemon.PID, s) }

// down ends the daemon, kills what is left in the namespaces, and removes cgroups and files. It may be called again.
func (b *box) down() error {
	if b.daemon.alive() {
		_ = b.signal(unix.SIGTERM) // it may be gone meanwhile
		for range 250 {
			if !b.daemon.alive() {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	errs := []error{(&Env{Holder: b.holder, Service: b.daemon}).killAll()}
	roots, err := cgroupRoots()
	errs = append(errs, err)
	for _, root := range roots {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(root, b.parent), func(name string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil // gone meanwhile
		})
		errs = append(errs, err)
		for i := len(dirs) - 1; i >= 0; i-- {
			errs = append(errs, rmdir(dirs[i]))
		}
	}
	errs = append(errs, os.RemoveAll(b.dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what is in %s: %w", b.dir, err)
	}
	return nil
}

// Enter the namespaces and run a command to its end; it returns what was printed on stdout, without the last newline.
func (b *box) Enter(ctx context.Context, command ...string) (string, error) {
	var stderr strings.Builder
	args := append([]string{"--target", strconv.Itoa(b.holder.PID), "--mount", "--net", "--"}, command...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return strings.TrimSuffix(string(out), "\n"), fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// Dir is where its files are.
func (b *box) Dir() string { return b.dir }
