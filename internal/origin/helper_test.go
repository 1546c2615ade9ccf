// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

var compiled struct {
	dir               string
	dynamic, static   sync.Once
	dynErr, staticErr error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "origin")
	if err != nil {
		panic(err)
	}
	compiled.dir = dir
	code := testenv.Checked(m).Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// caller is the compiled testdata/caller.c.
func caller(t testing.TB, static bool) string {
	t.Helper()
	testenv.NeedGCC(t)
	once, err, name, flags := &compiled.dynamic, &compiled.dynErr, "caller", []string{"-O1"}
	if static {
		once, err, name, flags = &compiled.static, &compiled.staticErr, "static", []string{"-O1", "-static"}
	}
	path := filepath.Join(compiled.dir, name)
	once.Do(func() {
		var out []byte
		if out, *err = exec.Command("gcc", append(flags, "-o", path, "testdata/caller.c")...).CombinedOutput(); *err != nil {
			t.Logf("%s", out)
		}
	})
	if *err != nil {
		t.Fatal(*err)
	}
	age(t, path)
	return path
}

// age waits until a process that starts now is younger than the file, in clock ticks.
func age(t testing.TB, path string) {
	t.Helper()
	const tick = 50 * time.Millisecond
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(time.Unix(st.Ctim.Unix()).Add(tick)))
}

// start a process that prints an address behind a system call instruction and waits for the end of its input, which comes
// with the end of the test.
func start(t testing.TB, cmd *exec.Cmd) (pid int, address uint64) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v said nothing: %v", cmd.Args, err)
	}
	address, err = strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, address
}

// withCode makes an old file that begins with a system call instruction.
func withCode(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, append([]byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}, make([]byte, 4088)...), 0o755); err != nil {
		t.Fatal(err)
	}
	age(t, path)
	return path
}

// both ways to ask for mappings.
func both(t *testing.T, test func(t *testing.T, g *Gatherer)) {
	for _, text := range []bool{false, true} {
		name := "ioctl"
		if text {
			name = "text"
		}
		t.Run(name, func(t *testing.T) {
			g := NewGatherer(0)
			g.noIoctl.Store(text)
			test(t, g)
		})
	}
}
