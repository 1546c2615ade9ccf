// SPDX-License-Identifier: Apache-2.0

// Command demo shows Whittle's main job on a real container: an unmodified Redis is learned while it serves, enforced, loaded
// again, and attacked from inside. It leaves nothing behind.
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
	fmt.Printf("\n── Done in %.0f s; nothing is left behind. Next, for your own containers:\n%s\n", time.Since(began).Seconds(),
		"sudo bin/whittle agent --hooks-dir /etc/containers/oci/hooks.d")
}

// demo is the private Podman, the agent and what they work on, all below one directory.
type demo struct {
	dir     string
	whittle string
	env     *testbed.Env
	agent   *exec.Cmd
	client  *api.Client
	out     io.Writer
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
	for _, step := range []func(context.Context) error{d.prepare, d.learn, d.enforce, d.attack, d.report} {
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

// cli runs whittle against the demo's agent, showing the command as a user would type it, and returns what it printed.
func (d *demo) cli(ctx context.Context, show bool, args ...string) (string, error) {
	if show {
		fmt.Fprintf(d.out, "$ whittle %s\n", strings.Join(args, " "))
	}
	cmd := command(ctx, d.whittle, append([]string{"--socket", d.path("whittle.sock"), "--state", d.path("state")}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("whittle %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// clean ends everything that the demo started, in the opposite order, whatever state it is in.
func (d *demo) clean() error {
	var errs []error
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	if d.env != nil {
		errs = append(errs, d.env.Down())
	}
	if d.agent != nil {
		errs = append(errs, d.stopAgent())
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
