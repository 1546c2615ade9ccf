// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) {
	// The scripts run this test binary under the name whittle.
	testscript.Main(checked{m}, map[string]func(){"whittle": main})
}

// checked looks for leaks of the tests, and not of each whittle.
type checked struct{ m *testing.M }

func (c checked) Run() int { return testenv.Checked(c.m).Run() }

// TestScripts need nothing: bad input, stored state, formats.
func TestScripts(t *testing.T) { scripts(t, "testdata/script") }

// TestBPFScripts observe, enforce and run the agent.
func TestBPFScripts(t *testing.T) {
	testenv.NeedBPF(t)
	scripts(t, "testdata/bpf")
}

func scripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "appears": appears, "hooks": hooks, "serves": serves, "judged": judgedCases,
		},
		Setup: func(env *testscript.Env) error {
			// Short: a socket's path has at most 107 bytes.
			dir, err := os.MkdirTemp("", "w")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("S", dir+"/s")
			env.Setenv("STATE", filepath.Join(env.WorkDir, "state"))
			return nil
		},
	})
}

// exits STATUS COMMAND… runs a command that must end with this very status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%s exited with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// appears TEXT COMMAND… repeats a command until its output has the text. The test's timeout ends it otherwise.
func appears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: appears TEXT COMMAND…")
	}
	for {
		_ = ts.Exec(args[1], args[2:]...)
		if strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// hooks checks that a file is a hook's configuration for this executable.
func hooks(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	for _, part := range []string{`"hook"`, `"--socket"`, `"timeout"`} {
		if !strings.Contains(text, part) {
			ts.Fatalf("%s has no %s: %s", args[0], part, text)
		}
	}
}
