// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dial an address in the container's network namespace, or a unix socket of its root. The address is of numbers.
func (i *Instance) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if strings.HasPrefix(network, "unix") {
		return d.DialContext(ctx, network, i.Path(address))
	}
	if i.keeper == nil {
		return nil, errors.New("the container is gone")
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The thread is not given back: it ends with the goroutine, and no other ever runs in that namespace.
		runtime.LockOSThread()
		ns, err := os.Open("/proc/" + i.keeper.pid() + "/ns/net")
		if err == nil {
			err = errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), ns.Close())
		}
		if err != nil {
			done <- result{err: fmt.Errorf("enter the network of %s: %w", i.Name, err)}
			return
		}
		// The socket of an address in numbers is made by the goroutine that dials.
		conn, err := d.DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// HTTP is a client of what listens in the container. Each request has a connection of its own; redirects are not followed.
func (i *Instance) HTTP() *http.Client {
	return &http.Client{
		Timeout:       20 * time.Second,
		Transport:     &http.Transport{DialContext: i.Dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Exec runs a program of the host in the container's network, outside of its cgroup and of its files, and returns what it
// printed on stdout, without the last newline. {ROOT} in an argument is the container's root.
func (i *Instance) Exec(ctx context.Context, args ...string) (string, error) {
	return i.ExecInput(ctx, "", args...)
}

// ExecInput is Exec with a stdin.
func (i *Instance) ExecInput(ctx context.Context, stdin string, args ...string) (string, error) {
	if i.keeper == nil {
		return "", errors.New("the container is gone")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	args = append([]string(nil), args...)
	for n := range args {
		args[n] = strings.ReplaceAll(args[n], "{ROOT}", i.Path("/"))
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/proc/" + i.keeper.pid() + "/ns/net", "--"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = time.Second
	out := func() string { return strings.TrimSuffix(stdout.String(), "\n") }
	if err := cmd.Run(); err != nil {
		return out(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, tail(stderr.String()+stdout.String()))
	}
	return out(), nil
}

// Children of the container's init, in the host's pid namespace, whose command line has a text in it.
func (i *Instance) Children(text string) (pids []int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", i.PID))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		list, err := os.ReadFile(name)
		if err != nil {
			continue // the thread is gone
		}
		for field := range strings.FieldsSeq(string(list)) {
			line, err := os.ReadFile("/proc/" + field + "/cmdline")
			pid, bad := strconv.Atoi(field)
			if err == nil && bad == nil && strings.Contains(strings.ReplaceAll(string(line), "\x00", " "), text) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// KillChild kills one of the children with a text in its command line, and waits until there is another in its place.
func (i *Instance) KillChild(ctx context.Context, text string, s unix.Signal) error {
	before, err := i.Children(text)
	if err != nil {
		return err
	}
	if len(before) == 0 {
		return fmt.Errorf("%s has no child %q", i.Name, text)
	}
	old := map[int]bool{}
	for _, pid := range before {
		old[pid] = true
	}
	if err := unix.Kill(before[0], s); err != nil {
		return fmt.Errorf("kill a child of %s: %w", i.Name, err)
	}
	return Eventually(ctx, 20*time.Second, func() error {
		now, err := i.Children(text)
		if err != nil {
			return err
		}
		for _, pid := range now {
			if !old[pid] {
				return nil
			}
		}
		return fmt.Errorf("no child %q has come in the place of %d", text, before[0])
	})
}

// Eventually waits until f returns nil; else it returns its last error.
func Eventually(ctx context.Context, limit time.Duration, f func() error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		now := f()
		if now == nil {
			return nil
		}
		if err == nil || ctx.Err() == nil { // what the deadline cuts off says nothing
			err = now
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
