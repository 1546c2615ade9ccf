// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/testbed"
)

// Options of Start. The zero Options are a plain container of runc.
type Options struct {
	// Runtime is the command line that stands for the OCI runtime; nil is runc, or crun where that is all there is. Its own
	// arguments (--root …) are appended. The last word of it that names runc or crun is who removes the container.
	Runtime []string
	// Edit the container's config.json before it is made.
	Edit func(*specs.Spec) error
	// Created is called when the container's init waits to execute the service: everything it does is still to come.
	Created func(*Instance) error
	// Name of the container; "" is a new one.
	Name string
	// NotReady does not wait until it serves.
	NotReady bool
}

// readyWait is generous: what fails for good is told by the process that ends.
const readyWait = 60 * time.Second

var started atomic.Uint32

// Instance is one container of a service.
type Instance struct {
	Service
	ID  string
	PID int // of the container's init, in the host's pid namespace
	Dir string

	keeper  *keeper
	runtime []string
	pidfd   int
}

// Start a service in a new container, and wait until it is ready. On an error nothing is left.
func Start(ctx context.Context, s Service, o Options) (*Instance, error) {
	i, err := newInstance(ctx, s, o)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	if err := i.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w: %s", s.Name, err, i.logTail()), i.Remove())
	}
	return i, nil
}

func newInstance(ctx context.Context, s Service, o Options) (i *Instance, err error) {
	i = &Instance{Service: s, ID: o.Name, runtime: o.Runtime, pidfd: -1}
	if i.ID == "" {
		i.ID = fmt.Sprintf("wsvc-%d-%d-%s", os.Getpid(), started.Add(1), s.Name)
	}
	if err := swept(); err != nil {
		return nil, err
	}
	name := "runc"
	if _, err := exec.LookPath(name); err != nil {
		name = "crun"
	}
	if len(i.runtime) == 0 {
		i.runtime = []string{name}
	}
	// Who made the container removes it, without what is around it: that may have ended. The state is the runtime's own.
	for _, arg := range i.runtime {
		if base := filepath.Base(arg); base == "runc" || base == "crun" {
			name = arg
		}
	}
	hybrid, err := testbed.Hybrid()
	if err != nil {
		return nil, err
	}
	// Not /tmp, which may be in memory: what a service does with files shall be what it does on a disk.
	if i.Dir, err = os.MkdirTemp("/var/tmp", "whittle-"+s.Name+"-"); err != nil {
		return nil, err
	}
	err = os.Chmod(i.Dir, 0o711)
	for _, sub := range []string{"upper", "overlay", "rootfs", "state", "bundle"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(i.Dir, sub), 0o755))
	}
	if err = errors.Join(err, s.furnish(filepath.Join(i.Dir, "upper"))); err == nil {
		i.keeper, err = newKeeper(ctx, i.Dir, i.ID, name, hybrid)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(i.Dir))
	}
	return i, nil
}

func (i *Instance) start(ctx context.Context, o Options) error {
	for _, c := range i.Prepare {
		if err := i.prepare(ctx, c); err != nil {
			return err
		}
	}
	spec, err := i.spec(i.Root(), "/proc/"+i.keeper.pid()+"/ns/net", "/"+i.ID)
	if err != nil {
		return err
	}
	if o.Edit != nil {
		if err := o.Edit(spec); err != nil {
			return err
		}
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	bundle := filepath.Join(i.Dir, "bundle")
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600); err != nil {
		return err
	}
	pidFile := filepath.Join(i.Dir, "pid")
	if err := i.oci(ctx, "create", "--pid-file", pidFile, "--bundle", bundle, i.ID); err != nil {
		return err
	}
	if err := i.adopt(pidFile); err != nil {
		return err
	}
	if o.Created != nil {
		if err := o.Created(i); err != nil {
			return err
		}
	}
	if err := i.oci(ctx, "start", i.ID); err != nil {
		return err
	}
	if o.NotReady {
		return nil
	}
	return i.AwaitReady(ctx)
}

// oci runs a command of the runtime. Its output is a file, not a pipe: the container keeps it.
func (i *Instance) oci(ctx context.Context, args ...string) error {
	log, err := os.OpenFile(i.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	_ = log.Chmod(0o666) // services that open /dev/stderr again are somebody else by then
	cmd := i.keeper.enter(ctx, append(append(append([]string(nil), i.runtime...), "--root", filepath.Join(i.Dir, "state")), args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C is not for it, and what is cut off ends with all that it has started, so that nothing is made after
	// it was removed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", i.runtime[0], args[0], err)
	}
	return nil
}

func (i *Instance) adopt(pidFile string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	if i.PID, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return err
	}
	i.pidfd, err = unix.PidfdOpen(i.PID, 0)
	return err
}

// prepare runs a command in the root, with the host's devices. Its mounts end with it.
func (i *Instance) prepare(ctx context.Context, c Command) error {
	const script = `mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && root=$0 user=$1 && shift && exec chroot $user "$root" "$@"`
	user := "--userspec=root:root"
	if c.User != "" {
		user = "--userspec=" + c.User + ":" + c.User
	}
	args := []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script, i.Root(), user}
	cmd := i.keeper.enter(ctx, append(args, c.Args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("prepare: %s: %w: %s", strings.Join(c.Args, " "), err, tail(string(out)))
	}
	return nil
}

// AwaitReady waits until it serves.
func (i *Instance) AwaitReady(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	for {
		now := i.Ready(ctx, i)
		if now == nil {
			return nil
		}
		if err == nil || ctx.Err() == nil { // what the deadline cuts off says nothing
			err = now
		}
		if !i.Alive() {
			return fmt.Errorf("it has ended: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Root of its files as this program sees it. It is there until Remove.
func (i *Instance) Root() string {
	if i.keeper == nil {
		return ""
	}
	return filepath.Join(i.Dir, "rootfs")
}

// Path of a file of the running container, for this program.
func (i *Instance) Path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(i.PID), "root", name)
}

// Process of the container's init.
func (i *Instance) Process() (*process.Process, error) { return process.Open(i.PID) }

// Alive tells whether the container's init has not ended.
func (i *Instance) Alive() bool {
	fds := []unix.PollFd{{Fd: int32(i.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0 && i.pidfd >= 0
}

// Signal its init.
func (i *Instance) Signal(s unix.Signal) error {
	if err := unix.PidfdSendSignal(i.pidfd, s, nil, 0); err != nil {
		return fmt.Errorf("send %s to %s: %w", unix.SignalName(s), i.Name, err)
	}
	return nil
}

// Stop it as an engine does, and wait until it has ended. It may have ended before.
func (i *Instance) Stop(ctx context.Context) error {
	if !i.Alive() {
		return nil
	}
	s := i.StopSignal
	if s == 0 {
		s = unix.SIGTERM
	}
	if err := i.Signal(s); err != nil {
		return err
	}
	return i.AwaitEnd(ctx)
}

// AwaitEnd of the container's init.
func (i *Instance) AwaitEnd(ctx context.Context) error {
	return Eventually(ctx, 30*time.Second, func() error {
		if i.Alive() {
			return errors.New("it has not ended")
		}
		return nil
	})
}

// Remove what is left of it. It may be called again.
func (i *Instance) Remove() error {
	if i.keeper == nil {
		return nil
	}
	if i.pidfd >= 0 {
		_ = unix.Close(i.pidfd)
		i.pidfd = -1
	}
	err := i.keeper.end()
	i.keeper = nil
	return err
}

func (i *Instance) logFile() string { return filepath.Join(i.Dir, "log") }

// Log is what the container has written to stdout and stderr.
func (i *Instance) Log() string {
	text, _ := os.ReadFile(i.logFile())
	return string(text)
}

func (i *Instance) logTail() string { return tail(i.Log()) }

func tail(text string) string {
	text = strings.TrimSpace(text)
	return text[max(0, len(text)-1500):]
}
