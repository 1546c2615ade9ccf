// SPDX-License-Identifier: Apache-2.0

// Command bench measures what observing and enforcing cost on this machine, and says beside each figure whether it is
// within the bar that the project has set. It asserts nothing: a missed bar does not fail it.
//
//	sudo make bench
//	sudo go run ./testbed/bench -only calls,attach
//	sudo go run ./testbed/bench -markdown docs/benchmarks.md
//
// It needs root, and for parts of it strace, bpftrace, podman and redis. What it starts it removes, also at SIGINT.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run.
type bench struct {
	dir     string // for everything that is written
	whittle string // the binary
	groups  *groups
	report  report
}

type options struct {
	markdown, whittle, only string
}

// sections in the order in which they run.
var sections = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"calls", (*bench).calls},
	{"attach", (*bench).attach},
	{"redis", (*bench).redis},
	{"memory", (*bench).memory},
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == loopCommand {
		if err := loop(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "loop:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.markdown, "markdown", "", "also write the report to `FILE`")
	flag.StringVar(&o.whittle, "whittle", "bin/whittle", "the binary to measure; built if it is missing")
	flag.StringVar(&o.only, "only", "", "only these `SECTIONS`: calls, attach, redis, memory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("measuring needs root: sudo make bench")
	}
	only := strings.FieldsFunc(o.only, func(r rune) bool { return r == ',' })
	for _, name := range only {
		if !slices.ContainsFunc(sections, func(s struct {
			name string
			run  func(*bench, context.Context) error
		}) bool {
			return s.name == name
		}) {
			return fmt.Errorf("there is no section %q", name)
		}
	}
	b := &bench{}
	// Not below TMPDIR by its full name: a socket's path has 107 bytes at most.
	if b.dir, err = os.MkdirTemp("", "wbench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.whittle, err = binary(ctx, o.whittle, b.dir); err != nil {
		return err
	}
	if b.groups, err = newGroups(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.groups.close()) }()
	start := time.Now()
	b.report.machine = describeMachine()
	for _, s := range sections {
		if len(only) > 0 && !slices.Contains(only, s.name) {
			continue
		}
		began := time.Now()
		if err := s.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.say("%s took %.0f s", s.name, time.Since(began).Seconds())
	}
	b.report.took = time.Since(start)
	fmt.Print(b.report.text())
	if o.markdown == "" {
		return nil
	}
	return os.WriteFile(o.markdown, []byte(b.report.markdown()), 0o644)
}

// binary to measure, as an absolute path.
func binary(ctx context.Context, name, dir string) (string, error) {
	if _, err := os.Stat(name); err == nil {
		return filepath.Abs(name)
	}
	name = filepath.Join(dir, "whittle")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", name, "./cmd/whittle")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build whittle: %w", err)
	}
	return name, nil
}

// say what goes on, to whoever waits.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
