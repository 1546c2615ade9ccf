// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// askAs makes this test binary a client that asks for the status and prints what it was told.
const askAs = "WHITTLE_TEST_ASK"

func TestMain(m *testing.M) {
	if socket := os.Getenv(askAs); socket != "" {
		c := NewClient(socket)
		s, err := c.Status(context.Background())
		fmt.Printf("%d %v %s\n", s.PID, err, hint.Of(err))
		os.Exit(0)
	}
	testenv.Main(m)
}

// A process of another user is refused by its credentials, whatever the socket's mode is.
func TestStranger(t *testing.T) {
	testenv.NeedRoot(t)
	socket := serve(t, &fake{})
	for dir := filepath.Dir(socket); dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(filepath.Dir(socket), "ask") // go test's own directory is not open to others
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	ask := func(uid, gid uint32, groups ...uint32) string {
		cmd := exec.Command(exe)
		cmd.Dir = "/"
		cmd.Env = []string{askAs + "=" + socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if got := ask(65534, 65534); !strings.Contains(got, "not allowed to open") || !strings.Contains(got, "sudo") {
		t.Errorf("a stranger was told %q, want that the socket is closed to it, and a hint", got)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := ask(65534, 65534, 1, 2, 3); !strings.Contains(got, "only root and members of the group") || !strings.Contains(got, "sudo") {
		t.Errorf("a stranger was told %q, want a refusal and a hint", got)
	}
	if got := ask(0, 0); !strings.HasPrefix(got, "7 <nil>") {
		t.Errorf("root was told %q", got)
	}
}
