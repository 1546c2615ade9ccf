// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// do is what an operation does.
type do = func(context.Context, *Instance) error

// all of them, one after the other; the first error ends it.
func all(steps ...do) do {
	return func(ctx context.Context, i *Instance) error {
		for _, step := range steps {
			if err := step(ctx, i); err != nil {
				return err
			}
		}
		return nil
	}
}

// repeat is load.
func repeat(times int, steps ...do) do {
	return func(ctx context.Context, i *Instance) error {
		for range times {
			if err := all(steps...)(ctx, i); err != nil {
				return err
			}
		}
		return nil
	}
}

// eventually it does not fail.
func eventually(step do) do {
	return func(ctx context.Context, i *Instance) error {
		return Eventually(ctx, 20*time.Second, func() error { return step(ctx, i) })
	}
}

// client is a program beside the container that has to print a text.
func client(want string, args ...string) do { return clientInput(want, "", args...) }

func clientInput(want, stdin string, args ...string) do {
	return func(ctx context.Context, i *Instance) error {
		out, err := i.ExecInput(ctx, stdin, args...)
		return wants(strings.Join(args, " "), out, want, err)
	}
}

// admin is client, for programs that read the service's files and signal its processes. See Inside.
func admin(want string, args ...string) do {
	return func(ctx context.Context, i *Instance) error {
		out, err := i.Inside(ctx, args...)
		return wants(strings.Join(args, " "), out, want, err)
	}
}

func wants(what, got, want string, err error) error {
	if err != nil {
		return err
	}
	if !strings.Contains(got, want) {
		return fmt.Errorf("%s answers %q, want %q", what, tail(got), want)
	}
	return nil
}

// Inside runs a program in the container's network, process ids and files, but outside of its cgroup: it is not seen as
// the container's, and no filter is on it. Its mount namespace is the host's, by which containers may be told apart, too.
func (i *Instance) Inside(ctx context.Context, args ...string) (string, error) {
	proc := fmt.Sprintf("/proc/%d/", i.PID)
	return i.Exec(ctx, append([]string{"nsenter", "--pid=" + proc + "ns/pid", "--root=" + proc + "root", "--wd=" + proc + "root", "--"}, args...)...)
}

// signal its init.
func signal(s unix.Signal) do {
	return func(_ context.Context, i *Instance) error { return i.Signal(s) }
}

// changed replaces a text in a file of it, as who configures it would. An old text that is in the new one lets it be done again.
func changed(name, old, new string) do {
	return func(_ context.Context, i *Instance) error { return i.replace(name, old, new) }
}

// written makes a file of it anew, as its owner would.
func written(name, text string) do {
	return func(_ context.Context, i *Instance) error { return i.rewrite(name, text) }
}

// contains waits until a file has a text in it.
func contains(name, want string) do { return eventually(holds(name, want)) }

// holds is contains without waiting.
func holds(name, want string) do {
	return func(_ context.Context, i *Instance) error {
		text, err := os.ReadFile(i.Path(name))
		return wants(name, string(text), want, err)
	}
}

// rotation renames a log, signals, and uses the service until there is something in the new log.
func rotation(name string, s unix.Signal, use do) do {
	return func(ctx context.Context, i *Instance) error {
		return i.rotated(ctx, name, func() error { return i.Signal(s) }, func() error { return use(ctx, i) })
	}
}

// step of a conversation: what is sent, and what has to be in the answer.
type step struct{ send, want string }

// converse over a new connection: each step is sent when the one before is answered. A service that speaks first is met with
// a first step that sends nothing.
func converse(network, address string, steps ...step) do {
	return func(ctx context.Context, i *Instance) error {
		conn, err := i.Dial(ctx, network, address)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		buf := make([]byte, 64<<10)
		for _, s := range steps {
			if _, err := conn.Write([]byte(s.send)); err != nil {
				return err
			}
			var got strings.Builder
			for !strings.Contains(got.String(), s.want) {
				n, err := conn.Read(buf)
				got.Write(buf[:n])
				if err != nil {
					return fmt.Errorf("%.40q is answered %q, want %q: %w", s.send, tail(got.String()), s.want, err)
				}
			}
		}
		return nil
	}
}

// served waits until a certificate is.
func served(address string, serial int64) do {
	return func(ctx context.Context, i *Instance) error { return i.awaitSerial(ctx, address, serial) }
}
