// SPDX-License-Identifier: Apache-2.0

// Command whittle is the command line and, as `whittle agent`, the daemon. It puts the packages under internal together and
// holds no judgement of its own. Only main prints errors and exits.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"

	"github.com/whittle-sec/whittle/internal/hint"
	"golang.org/x/sys/unix"
)

// version is set when a release is built.
var version = "unknown"

func main() {
	if isRuntime(os.Args[0]) {
		a := &app{in: os.Stdin, out: os.Stdout, talk: os.Stderr}
		os.Exit(a.runtimeNamed(context.Background(), os.Args[0], os.Args[1:]))
	}
	// No handler is installed here: commands that live long handle their signals themselves (see untilSignal).
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// The exit codes. `whittle run` also exits with its command's.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// exitCode ends whittle with a status and without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// execute a command line; the result is the exit code.
func execute(ctx context.Context, args []string, in io.Reader, out, talk io.Writer) int {
	a := &app{in: in, out: out, talk: talk}
	root := newRoot(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var code exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, unix.EPIPE):
		return exitOK // the reader has seen enough
	}
	fmt.Fprintf(talk, "whittle: error: %v\n", err)
	h := hint.Of(err)
	switch {
	case h != "":
	case !a.parsed:
		h = "see " + cmd.CommandPath() + " --help"
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		h = "run it with sudo"
	}
	if h != "" {
		fmt.Fprintf(talk, "whittle: hint: %s\n", h)
	}
	if !a.parsed || errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitError
}

// errUsage marks what is wrong with the command line, where cobra could not know.
var errUsage = errors.New("usage")

type usageError struct{ error }

func (u usageError) Unwrap() []error { return []error{u.error, errUsage} }

// untilSignal is done at SIGINT or SIGTERM.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
}
