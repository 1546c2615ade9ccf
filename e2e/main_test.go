// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the binary as people run it: real processes, real containers, an agent with its own state and socket.
// Nothing is shared between tests but the executable, so that they may run beside each other and beside a real agent.
package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// scratch holds what tests share: the binary, images, static programs. It may be read by nobody, the user, too.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait: for containers, for quiet, for what is to happen after a while.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	// The checker looks for leaks after the scratch directory's removal has been noted, so the exit code is one.
	os.Exit(testenv.Checked(withScratch{m}).Run())
}

type withScratch struct{ m *testing.M }

func (w withScratch) Run() int {
	var err error
	if scratch, err = os.MkdirTemp("", "e2e"); err == nil {
		err = os.Chmod(scratch, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := w.m.Run()
	if left := leftovers(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "e2e: the tests left this behind:\n\t%s\n", strings.Join(left, "\n\t"))
		code = 1
	}
	if err := os.RemoveAll(scratch); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// leftovers of this process's tests that are not below it: processes of the binary, cgroups.
func leftovers() (left []string) {
	exes, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is right
	for _, exe := range exes {
		if target, err := os.Readlink(exe); err == nil && strings.HasPrefix(target, scratch) {
			left = append(left, exe+" -> "+target)
		}
	}
	for _, depth := range []string{"", "*/", "*/*/"} {
		groups, _ := filepath.Glob("/sys/fs/cgroup/" + depth + containerID("*"))
		left = append(left, groups...)
	}
	return left
}

var build = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "whittle")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", bin, "../cmd/whittle")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build whittle: %w: %s", err, out)
	}
	return bin, err
})

// binary of this source tree.
func binary(t *testing.T) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// compile a program of testdata. The programs have no C library: they make the calls that they name, and no other.
func compile(t *testing.T, source string, flags ...string) string {
	t.Helper()
	testenv.NeedGCC(t)
	out := filepath.Join(t.TempDir(), strings.TrimSuffix(source, ".c"))
	args := append([]string{"-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector",
		"-o", out, filepath.Join("testdata", source)}, flags...)
	if text, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v: %s", source, err, text)
	}
	return out
}

const (
	patience = 60 * time.Second // for what takes milliseconds on an idle machine
	glance   = 100 * time.Millisecond
)

// eventually waits for a condition; why says what it looks like now.
func eventually(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		done, now := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s; %s", patience, what, now)
		}
		time.Sleep(glance)
	}
}

// output of a process, while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
