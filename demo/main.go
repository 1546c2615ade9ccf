// SPDX-License-Identifier: Apache-2.0

// Command demo shows Whittle's main job on real containers: unmodified Redis, nginx and PostgreSQL are learned while they serve,
// and enforced while they serve, without a restart when booting ends. Then they are attacked from inside. What it says it
// checks; it leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/testbed"
)

// longest is how long the whole demo may take before it gives up and cleans up.
const longest = 5 * time.Minute

func main() {
	whittle := flag.String("whittle", "bin/whittle", "the whittle binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	ctx, cancel := context.WithTimeout(ctx, longest)
	began := time.Now()
	err := run(ctx, *whittle)
	cancel()
	stop()
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "whittle: interrupted; nothing was left behind")
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "whittle: error:", err)
		os.Exit(1)
	}
	fmt.Printf("\n── Done in %.0f s; nothing is left behind. Next, for your own containers:\n%s\n%s\n", time.Since(began).Seconds(),
		"sudo bin/whittle install --engine podman", "sudo bin/whittle agent --mode auto")
}

// demo is the private Podman, the agent and what they work on, all below one directory.
type demo struct {
	dir      string
	whittle  string
	env      *testbed.Env
	agent    *exec.Cmd
	client   *api.Client
	out      io.Writer
	services []*service
	before   map[string]bool // which of the probed calls pass without Whittle
}

func run(ctx context.Context, whittle string) (err error) {
	if whittle, err = filepath.Abs(whittle); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "whittle-demo-")
	if err != nil {
		return err
	}
	d := &demo{dir: dir, whittle: whittle, out: os.Stdout}
	defer func() {
		interrupted := ctx.Err()
		if interrupted != nil {
			err = interrupted // whatever a command made of it
		}
		if failed := d.clean(); failed != nil {
			err = fmt.Errorf("%v; clean up %s: %w", err, dir, failed)
		}
	}()
	defer func() {
		if err != nil && ctx.Err() == nil {
			d.explain()
		}
	}()
	steps := []func(context.Context) error{d.prepare, d.learn, d.report, d.attach, d.enforce, d.unlearned, d.attackService, d.attackExec, d.renew, d.end}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

// say a step.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "\n── %s\n", fmt.Sprintf(format, args...))
}

// command runs in a process group of its own, so that a terminal's Ctrl-C reaches only the demo, which then ends everything
// in order.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// output of a command, with what it said of an error in the error.
func output(ctx context.Context, name string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := command(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(append([]string{filepath.Base(name)}, args...), " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// cli runs whittle against the demo's agent and returns what it printed.
func (d *demo) cli(ctx context.Context, args ...string) (string, error) {
	return output(ctx, d.whittle, append([]string{"--socket", d.path("whittle.sock"), "--state", d.path("state")}, args...)...)
}

// show a command as a user would type it, and what it prints.
func (d *demo) show(ctx context.Context, args ...string) error {
	fmt.Fprintf(d.out, "$ whittle %s\n", strings.Join(args, " "))
	text, err := d.cli(ctx, args...)
	// What whittle says is to be typed names the demo's own agent, which is left out above, too.
	fmt.Fprint(d.out, strings.ReplaceAll(text, fmt.Sprintf(" --state %s --socket %s", d.path("state"), d.path("whittle.sock")), ""))
	return err
}

// podman shows a command of Podman's and runs it.
func (d *demo) podman(ctx context.Context, args ...string) (string, error) {
	fmt.Fprintf(d.out, "$ podman %s\n", strings.Join(args, " "))
	return d.env.Run(ctx, args...)
}

// explain what went wrong, as far as the agent knows: it is gone when the error is printed.
func (d *demo) explain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, args := range [][]string{{"status"}, {"event", "list", "--limit", "30"}} {
		if text, err := d.cli(ctx, args...); err == nil {
			fmt.Fprintf(os.Stderr, "\n$ whittle %s\n%s", strings.Join(args, " "), text)
		}
	}
}

// clean ends everything that the demo started, in the opposite order, whatever state it is in.
func (d *demo) clean() error {
	var errs []error
	for _, s := range d.services {
		s.stopLoad()
	}
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	if d.env != nil {
		errs = append(errs, d.env.Down())
	}
	if d.agent != nil {
		errs = append(errs, d.stopAgent(), endHolder(d.path("holder.sock")))
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

func (d *demo) stopAgent() error {
	if err := d.agent.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(10*time.Second, func() { d.agent.Process.Kill() })
	defer kill.Stop()
	if err := d.agent.Wait(); err != nil {
		text, _ := os.ReadFile(d.path("agent.log"))
		return fmt.Errorf("the agent: %w\n%s", err, text)
	}
	return nil
}

// endHolder, which is nobody's child and would stay for a minute: it keeps the agent's listeners while no agent runs. Who it
// is, the kernel says of its socket.
func endHolder(socket string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range 20 { // it may just be starting
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return nil // there is none
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(int(peer.Pid), 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000); n != 1 {
		return fmt.Errorf("the holder, process %d, does not end: %w", peer.Pid, err)
	}
	return nil
}
