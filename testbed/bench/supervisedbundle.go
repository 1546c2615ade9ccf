// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

const (
	// serveCommand makes this program a server with threads that each wait in a call of their own.
	serveCommand   = "serve"
	portVariable   = "BENCH_PORT"
	threadVariable = "BENCH_THREADS"
)

// serve echoes what comes on the connections of each thread, one after another.
func serve() error {
	port, err1 := strconv.Atoi(os.Getenv(portVariable))
	threads, err2 := strconv.Atoi(os.Getenv(threadVariable))
	fd, err3 := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	at := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(fd, at), unix.Listen(fd, 128)); err != nil {
		return err
	}
	failed := make(chan error)
	for range threads {
		go func() {
			runtime.LockOSThread()
			for {
				conn, _, err := unix.Accept(fd)
				if err != nil {
					failed <- err
					return
				}
				echo(conn)
			}
		}()
	}
	return <-failed
}

func echo(conn int) {
	defer unix.Close(conn)
	var buffer [4096]byte
	for {
		n, err := unix.Read(conn, buffer[:])
		if err != nil || n == 0 {
			return
		}
		if _, err := unix.Write(conn, buffer[:n]); err != nil {
			return
		}
	}
}

// bundles are containers of this program's server, run by runc below whittle, without an engine.
type bundles struct {
	bench   *bench
	agent   *agentProcess
	dir     string
	profile *specs.LinuxSeccomp
}

func newBundles(ctx context.Context, b *bench, a *agentProcess) (*bundles, error) {
	dir, err := os.MkdirTemp(b.dir, "bundles")
	if err != nil {
		return nil, err
	}
	bs := &bundles{bench: b, agent: a, dir: dir}
	root := filepath.Join(dir, "rootfs")
	for _, name := range []string{root, root + "/proc", root + "/dev", root + "/sys", root + "/tmp"} {
		if err := os.Mkdir(name, 0o755); err != nil {
			return nil, err
		}
	}
	abi, ok := syscalls.Native(runtime.GOARCH)
	if !ok {
		return nil, errors.New("no default profile for " + runtime.GOARCH)
	}
	if bs.profile, err = filter.DefaultProfile(abi); err != nil {
		return nil, err
	}
	return bs, build(ctx, filepath.Join(root, "probe"), "./testbed/bench")
}

// bundle is one container. Its name is its cgroup's too, which all processes of the host share.
type bundle struct {
	name string
	port int
	pid  int
}

// write the config.json of a container.
func (bs *bundles) write(ctx context.Context, b bundle, threads int) error {
	dir := filepath.Join(bs.dir, b.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "runc", "spec")
	cmd.Dir = dir
	if err := quietly(cmd); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	spec.Process.Terminal, spec.Process.Rlimits = false, nil
	spec.Process.Args = []string{"/probe", serveCommand}
	spec.Process.Env = []string{fmt.Sprintf("%s=%d", portVariable, b.port), fmt.Sprintf("%s=%d", threadVariable, threads)}
	spec.Root.Path, spec.Root.Readonly = filepath.Join(bs.dir, "rootfs"), true
	spec.Linux.Seccomp = bs.profile
	var namespaces []specs.LinuxNamespace
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type != specs.NetworkNamespace {
			namespaces = append(namespaces, ns)
		}
	}
	spec.Linux.Namespaces = namespaces
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
}

// runc below whittle, which asks the agent what each container shall start with.
func (bs *bundles) runc(ctx context.Context, args ...string) *exec.Cmd {
	state := filepath.Join(bs.dir, "state")
	return bs.agent.command(ctx, append([]string{"runtime", "--real", "runc", "--", "--root", state}, args...)...)
}

func (bs *bundles) start(ctx context.Context, name string, threads int) (b bundle, err error) {
	b = bundle{name: fmt.Sprintf("wbench-%d-%s", os.Getpid(), name)}
	if b.port, err = freePort(); err != nil {
		return b, err
	}
	if err := bs.write(ctx, b, threads); err != nil {
		return b, err
	}
	pidFile := filepath.Join(bs.dir, b.name, "pid")
	cmd := bs.runc(ctx, "run", "--detach", "--pid-file", pidFile, "--bundle", filepath.Join(bs.dir, b.name), b.name)
	log, err := os.Create(filepath.Join(bs.dir, b.name, "log"))
	if err != nil {
		return b, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log // not a pipe: the container keeps it open
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return b, fmt.Errorf("runc run: %w: %s", err, text)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return b, err
	}
	if b.pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return b, err
	}
	if err := answers(ctx, openEcho, b.port); err != nil {
		text, _ := os.ReadFile(log.Name())
		return b, fmt.Errorf("%w: %s", err, text[:min(len(text), 2000)])
	}
	return b, nil
}

// remove a container, also after SIGINT.
func (bs *bundles) remove(b bundle) error {
	err := quietly(bs.runc(context.Background(), "delete", "--force", b.name))
	return errors.Join(err, os.RemoveAll(filepath.Join(bs.dir, b.name)))
}

// stop it as an engine does.
func (b bundle) stop() error { return syscall.Kill(b.pid, unix.SIGTERM) }
