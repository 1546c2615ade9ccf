// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

const (
	helpWithin = 10 * time.Second
	maxArgs    = 1 << 20 // bytes; the kernel takes 2 MB with the environment
)

// grammar is what the client of this host understands.
type grammar struct {
	program string // its path
	global  flags  // before the command
	command flags  // of run and create
	remote  flags  // of create, at a socket
}

// client is podman's command line, by which containers are made: nothing else turns its options into a container as it
// does. It is asked for its own options.
func client(ctx context.Context) (grammar, error) {
	g := grammar{}
	program, err := exec.LookPath("podman")
	if err != nil {
		err = fmt.Errorf("find podman's command line: %w", err)
		return g, hint.Add(err, "install podman on this host: containers are made again with its command line")
	}
	g.program = program
	ctx, cancel := context.WithTimeout(ctx, helpWithin)
	defer cancel()
	asked := [][]string{{"--help"}, {"--remote", "--help"}, {"run", "--help"}, {"create", "--help"}, {"--remote", "create", "--help"}}
	found := make([]flags, len(asked))
	failed := make([]error, len(asked))
	var wg sync.WaitGroup
	for i, args := range asked {
		wg.Go(func() {
			cmd := exec.CommandContext(ctx, program, args...)
			cmd.Env = environment()
			out, err := cmd.Output()
			if err != nil {
				failed[i] = fmt.Errorf("ask %s for its options: %w", program, err)
			}
			found[i] = parseHelp(string(out))
			if len(found[i]) == 0 && err == nil {
				failed[i] = fmt.Errorf("ask %s for its options: it names none: %w", program, engine.ErrIncompatible)
			}
		})
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			return g, err
		}
	}
	g.global, g.command, g.remote = found[0].with(found[1]), found[2].with(found[3]), found[4]
	// `podman --remote`, whose help says nothing of the option itself.
	for _, name := range []string{"--remote", "-r"} {
		g.global[name] = flag{name: "remote"}
	}
	return g, nil
}

// command is a container's command line, taken apart.
type command struct {
	options []setting
	image   string   // or the directory after --rootfs
	args    []string // the container's
}

// parse the CreateCommand of a container: `podman [global options] [container] run|create [options] IMAGE [ARG…]`.
func (g grammar) parse(argv []string) (command, error) {
	size := 0
	for _, arg := range argv {
		size += len(arg) + 1
	}
	switch {
	case len(argv) == 0:
		return command{}, fmt.Errorf("it was not created by podman's command line")
	case size > maxArgs:
		return command{}, fmt.Errorf("its command line has %d bytes: %w", size, errArguments)
	}
	_, rest, err := g.global.options(argv[1:])
	if err != nil {
		return command{}, fmt.Errorf("the command line that created it: %w", err)
	}
	if len(rest) > 0 && rest[0] == "container" {
		rest = rest[1:]
	}
	if len(rest) == 0 || rest[0] != "run" && rest[0] != "create" {
		verb := strings.Join(rest[:min(1, len(rest))], "")
		return command{}, fmt.Errorf("it was created by `%s %s`, and neither by `run` nor by `create`", printable(filepath.Base(argv[0])), printable(verb))
	}
	// Global options may stand behind the command, too.
	options, rest, err := g.command.with(g.global).options(rest[1:])
	if err != nil {
		return command{}, fmt.Errorf("the command line that created it: %w", err)
	}
	if len(rest) == 0 {
		return command{}, fmt.Errorf("the command line that created it names no image: %w", errArguments)
	}
	c := command{image: rest[0], args: rest[1:]}
	for _, o := range options {
		if _, ok := g.command["--"+o.name]; ok || contains(hidden, o.name) {
			c.options = append(c.options, o)
		}
	}
	return c, nil
}

// is tells the last value of an option.
func (c command) is(name string) (value string, ok bool) {
	for _, o := range c.options {
		if o.name == name {
			value, ok = o.text, true
		}
	}
	return value, ok
}

// on tells whether a switch is on.
func (c command) on(name string) bool {
	value, ok := c.is(name)
	return ok && truth(value)
}

// truth as strconv.ParseBool has it, and so podman.
func truth(s string) bool {
	switch s {
	case "1", "t", "T", "TRUE", "true", "True":
		return true
	}
	return false
}

// argv of the command that makes it again.
func (c command) argv(socket string) []string {
	out := []string{"--remote", "--url", "unix://" + socket, "create"}
	for _, o := range c.options {
		out = append(out, o.arg())
	}
	return append(append(out, c.image), c.args...)
}
