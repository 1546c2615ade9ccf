// SPDX-License-Identifier: Apache-2.0

// Command bench measures what observing and enforcing cost on this machine, and says beside each figure whether it is
// within the bar that the project has set. It asserts nothing: a missed bar does not fail it.
//
//	sudo make bench
//	sudo go run ./testbed/bench -only calls,attach
//	sudo go run ./testbed/bench -quick -only supervised,boot
//	sudo go run ./testbed/bench -markdown docs/benchmarks.md
//
// It needs root, and for parts of it strace, bpftrace, podman, redis, nginx, wrk and PostgreSQL: scripts/deps bench. What it
// starts it removes, also at SIGINT.
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

	"github.com/whittle-sec/whittle/testbed/document"
)

// bench is one run.
type bench struct {
	dir     string // for everything that is written
	whittle string // the binary
	groups  *groups
	report  report
	quick   bool
	bed     *supervisedBed // nil until a section needs it
}

type options struct {
	markdown, whittle, only string
	quick                   bool
}

// section of the report, and the tools without which it is left out.
type section struct {
	name  string
	run   func(*bench, context.Context) error
	needs []string
}

// sections in the order in which they run.
var sections = []section{
	{"calls", (*bench).calls, nil},
	{"attach", (*bench).attach, nil},
	{"redis", (*bench).redis, []string{"podman", "redis-server", "redis-benchmark"}},
	{"memory", (*bench).memory, nil},
	{"supervised", (*bench).supervisedSteady, []string{"podman"}},
	{"held", (*bench).heldCost, []string{"podman"}},
	{"boot", (*bench).supervisedBoot, []string{"podman"}},
	{"pause", (*bench).attachUnderLoad, []string{"podman", "runc"}},
	{"footprint", (*bench).footprint, []string{"runc"}},
}

// missing is the first tool that a section needs and that is not here, or "".
func (s section) missing() string {
	for _, tool := range s.needs {
		if _, err := exec.LookPath(tool); err != nil {
			return tool
		}
	}
	return ""
}

func sectionNames() string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// commands are what this program is when it is started by itself, inside of what is measured.
var commands = map[string]func() error{
	loopCommand:  func() error { return loop(os.Args[2]) },
	heldCommand:  timeCalls,
	serveCommand: serve,
}

func main() {
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		if err := commands[os.Args[1]](); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.markdown, "markdown", "", "also put the report into its place in `FILE`")
	flag.StringVar(&o.whittle, "whittle", "bin/whittle", "the binary to measure; built if it is missing")
	flag.StringVar(&o.only, "only", "", "only these `SECTIONS`: "+sectionNames())
	flag.BoolVar(&o.quick, "quick", false, "few rounds: does it work, not how fast is it")
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
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return fmt.Errorf("there is no section %q", name)
		}
	}
	b := &bench{quick: o.quick}
	// Not below TMPDIR by its full name: a socket's path has 107 bytes at most.
	if b.dir, err = os.MkdirTemp("", "wbench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.whittle, err = builtOrNamed(ctx, o.whittle, b.dir); err != nil {
		return err
	}
	if b.groups, err = newGroups(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.groups.close()) }()
	defer func() {
		if b.bed != nil {
			err = errors.Join(err, b.bed.close())
		}
	}()
	start := time.Now()
	b.report.machine = describeMachine()
	for _, s := range sections {
		if len(only) > 0 && !slices.Contains(only, s.name) {
			continue
		}
		if tool := s.missing(); tool != "" {
			b.say("%s: not measured, there is no %s", s.name, tool)
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
	return document.Write(o.markdown, "testbed/bench", b.report.markdown(os.Args[1:]))
}

// builtOrNamed is the binary to measure, as an absolute path.
func builtOrNamed(ctx context.Context, name, dir string) (string, error) {
	if _, err := os.Stat(name); err == nil {
		return filepath.Abs(name)
	}
	name = filepath.Join(dir, "whittle")
	return name, build(ctx, name, "./cmd/whittle")
}

// build a static program.
func build(ctx context.Context, name, from string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", name, from)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", from, err)
	}
	return nil
}

// rounds of a section, or few.
func (b *bench) rounds(n int) int {
	if b.quick {
		return max(1, n/5)
	}
	return n
}

// say what goes on, to whoever waits.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
