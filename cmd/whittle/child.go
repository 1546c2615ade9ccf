// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
	"golang.org/x/sys/unix"
)

// command to run in place of the shell's.
type command struct {
	path    string
	argv    []string
	extra   *os.File // descriptor 3, or nil
	mountNS bool
}

// status with which a command ended, as a shell tells it.
type status int

func (s status) err() error {
	if s == 0 {
		return nil
	}
	return exitCode(s)
}

// forwarded signals. SIGTSTP and SIGCONT are not among them: a shell sends them to the whole job, whittle included, and
// their default action is right for whittle too.
var forwarded = []os.Signal{
	unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
}

// toForward leaves SIGHUP alone under nohup: the command inherits that it is ignored. An interrupt is taken even where a shell
// ignores it for a background job, because it is how a recording is ended.
func toForward() []os.Signal {
	if signal.Ignored(unix.SIGHUP) {
		return slices.DeleteFunc(slices.Clone(forwarded), func(s os.Signal) bool { return s == unix.SIGHUP })
	}
	return forwarded
}

// runIn a cgroup (or in whittle's own, if g is nil) until the command and everything it started has ended.
func (a *app) runIn(g *cgroup, c command) (status, error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, toForward()...)
	defer signal.Stop(signals)
	cmd := exec.Cmd{Path: c.path, Args: c.argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if a.in != os.Stdin || a.out != os.Stdout { // a test's
		cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.talk
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if g != nil {
		// Born in its group: there is no moment in which it could run or fork outside of it (Linux 5.7).
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(g.file.Fd())
	}
	if c.extra != nil {
		cmd.ExtraFiles = []*os.File{c.extra}
	}
	if c.mountNS {
		cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the command: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	err := forward(cmd.Process, signals, done)
	ended, err := statusOfExit(cmd.ProcessState, err)
	if err != nil || g == nil {
		return ended, err
	}
	return ended, a.waitForRest(g, signals)
}

// forward signals to the process until it has ended.
func forward(p *os.Process, signals <-chan os.Signal, done <-chan error) error {
	for {
		select {
		case err := <-done:
			return err
		case s := <-signals:
			if fromTerminal(s) {
				continue
			}
			// It may have ended just now.
			_ = p.Signal(s)
		}
	}
}

// fromTerminal tells whether the terminal's driver has sent this signal to the whole foreground job, and so to the command
// too: then it must not get it twice. Go does not tell a signal's sender, so that a `kill -INT` of a whittle in the
// foreground of a terminal is taken for the key; SIGTERM always arrives.
func fromTerminal(s os.Signal) bool {
	if s != unix.SIGINT && s != unix.SIGQUIT && s != unix.SIGWINCH {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

func statusOfExit(state *os.ProcessState, err error) (status, error) {
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		return 0, fmt.Errorf("wait for the command: %w", err)
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + status(ws.Signal()), nil
	}
	return status(state.ExitCode()), nil
}

// waitForRest of the group: daemons that the command left behind. An interrupt ends them.
func (a *app) waitForRest(g *cgroup, signals <-chan os.Signal) error {
	// What dies together with the command is gone in a moment, and nobody needs to hear of it.
	empty, err := g.waitEmpty(200 * time.Millisecond)
	if err != nil || empty {
		return err
	}
	a.say("the command has ended and left %s running; waiting for them, interrupt to kill them", names(g.pids()))
	for {
		select {
		case s := <-signals:
			if s == unix.SIGINT || s == unix.SIGTERM || s == unix.SIGQUIT {
				g.kill()
			}
		default:
		}
		if empty, err := g.waitEmpty(100 * time.Millisecond); err != nil || empty {
			return err
		}
	}
}

// names of processes, for people.
func names(pids []int) string {
	var all []string
	for _, pid := range pids[:min(len(pids), 5)] {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			continue
		}
		all = append(all, fmt.Sprintf("%s[%d]", workload.Printable(strings.TrimSpace(string(comm)), 16), pid))
	}
	if more := len(pids) - 5; more > 0 {
		all = append(all, fmt.Sprintf("%d more", more))
	}
	return strings.Join(all, ", ")
}
