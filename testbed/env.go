// SPDX-License-Identifier: Apache-2.0

// Package testbed makes what tests, the demo and the benchmarks need to run real containers on any Linux machine as root: a
// Podman of their own that shares nothing with the host's, and images made from installed packages. It is no part
// of the product.
package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	stateFile   = "env.json"
	socketWait  = 20 * time.Second
	rightToBack = 30 * time.Second // for podman to remove its containers
)

// Env is a private Podman: its own storage, sockets, hooks and mount namespace below one directory. It is a value that Down
// finds again in another process.
type Env struct {
	Dir     string `json:"dir"`
	Runtime string `json:"runtime"` // the default one: "runc" or "crun"
	// Holder sleeps in the mount namespace, in which Podman and everything it starts run, so that every mount is gone
	// with the last process.
	Holder Proc `json:"holder"`
	// Service is `podman system service`.
	Service Proc `json:"service"`
	// Parents are the cgroup directories that were not there before.
	Parents []string `json:"parents,omitempty"`
}

func (e *Env) path(parts ...string) string {
	return filepath.Join(append([]string{e.Dir}, parts...)...)
}

// Socket of the API.
func (e *Env) Socket() string { return e.path("podman.sock") }

// HooksDir holds the OCI hooks of every container that is started here; it is empty at first.
func (e *Env) HooksDir() string { return e.path("hooks.d") }

// Podman is a script that runs podman here, from any directory and with any environment.
func (e *Env) Podman() string { return e.path("bin", "podman") }

// Up starts a private Podman in a directory that must not exist or be empty. An empty runtime means runc, or crun where
// that is all there is. On an error nothing is left.
func Up(ctx context.Context, dir, runtime string) (*Env, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("start a private podman: %w", err)
	}
	if runtime == "" {
		runtime = "runc"
		if _, err := exec.LookPath(runtime); err != nil {
			runtime = "crun"
		}
	}
	e := &Env{Dir: dir, Runtime: runtime}
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return nil, fmt.Errorf("start a private podman: %w", err)
	}
	if inside, err := os.ReadDir(dir); err != nil || len(inside) > 0 {
		return nil, fmt.Errorf("start a private podman: %s is not an empty directory (%v)", dir, err)
	}
	for _, step := range []func(context.Context) error{e.configure, e.hold, e.serve} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("start a private podman in %s: %w", dir, err), e.Down())
		}
	}
	return e, nil
}

// Open finds the Env that Up made in a directory.
func Open(dir string) (*Env, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("find the private podman: %w", err)
	}
	var e Env
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("find the private podman: %w", err)
	}
	return &e, nil
}

func (e *Env) save() error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(e.path(stateFile), text, 0o600)
}

// Command runs podman in the Env.
func (e *Env) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, e.Podman(), args...)
}

// Run is Command to its end; it returns what was printed on stdout, without the last newline.
func (e *Env) Run(ctx context.Context, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := e.Command(ctx, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("podman %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// Environ is what a shell exports to work in the Env.
func (e *Env) Environ() []string {
	return []string{
		"CONTAINERS_CONF=" + e.path("containers.conf"),
		"CONTAINERS_STORAGE_CONF=" + e.path("storage.conf"),
		"WHITTLE_PODMAN=" + e.Podman(),
		"WHITTLE_PODMAN_SOCKET=" + e.Socket(),
		"WHITTLE_HOOKS_DIR=" + e.HooksDir(),
	}
}

func (e *Env) configure(context.Context) error {
	podman, err := exec.LookPath("podman")
	if err != nil {
		return fmt.Errorf("%w; install it with `apt-get install podman`", err)
	}
	for _, dir := range []string{"bin", "hooks.d", "tmp", "root", "run", "networks", "volumes"} {
		if err := os.Mkdir(e.path(dir), 0o700); err != nil {
			return err
		}
	}
	settings, err := e.settings()
	if err != nil {
		return err
	}
	conf, err := containersConf(settings)
	if err != nil {
		return err
	}
	storage := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", e.path("root"), e.path("run"))
	if e.Parents, err = missingParents(); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"containers.conf": conf, "storage.conf": storage, "bin/podman.real": podman,
	} {
		if err := os.WriteFile(e.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return e.save()
}

// hold makes the mount namespace.
func (e *Env) hold(ctx context.Context) error {
	v2, err := Hybrid()
	if err != nil {
		return err
	}
	// The shell is gone when this returns, and the holder belongs to init.
	script := `if [ -n "$1" ]; then mount --bind /dev/null "$1/cgroup.controllers" || exit 1; fi
setsid sleep infinity </dev/null >/dev/null 2>&1 & echo $!`
	e.Holder, err = background(exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", v2))
	if err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	podman, err := os.ReadFile(e.path("bin", "podman.real"))
	if err != nil {
		return err
	}
	// nsenter -m ends up in /, and podman's arguments may be relative paths.
	wrapper := fmt.Sprintf(`#!/bin/sh
export CONTAINERS_CONF='%s' CONTAINERS_STORAGE_CONF='%s'
exec nsenter --target %d --mount -- sh -c 'cd "$0" && exec "$@"' "$PWD" %s "$@"
`, e.path("containers.conf"), e.path("storage.conf"), e.Holder.PID, podman)
	if err := os.WriteFile(e.Podman(), []byte(wrapper), 0o700); err != nil {
		return err
	}
	return e.save()
}

// serve starts the API and waits for it.
func (e *Env) serve(ctx context.Context) error {
	script := `setsid "$0" system service --time 0 "unix://$1" </dev/null >"$2" 2>&1 & echo $!`
	var err error
	e.Service, err = background(exec.CommandContext(ctx, "sh", "-c", script, e.Podman(), e.Socket(), e.path("service.log")))
	if err != nil {
		return fmt.Errorf("start podman's service: %w", err)
	}
	if err := e.save(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, socketWait)
	defer cancel()
	for {
		conn, err := net.Dial("unix", e.Socket())
		if err == nil {
			return conn.Close()
		}
		if !e.Service.alive() || ctx.Err() != nil {
			log, _ := os.ReadFile(e.path("service.log"))
			return fmt.Errorf("start podman's service: %w: %s", err, log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// background runs a shell that prints the pid of what it left running.
func background(cmd *exec.Cmd) (Proc, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return Proc{}, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return Proc{}, err
	}
	return procOf(pid)
}
