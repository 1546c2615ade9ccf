// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// Quick reads no file and no table of mounts, and says what Both says.
func TestQuick(t *testing.T) {
	testenv.NeedRoot(t)
	exe := caller(t, false)
	for _, test := range []struct {
		what string
		want bool
	}{{"own", true}, {"libc", true}, {"anonymous", true}, {"stack", true}} {
		t.Run(test.what, func(t *testing.T) {
			pid, ip := start(t, exec.Command(exe, test.what))
			home, err := HomeOf(pid)
			if err != nil {
				t.Fatal(err)
			}
			g := NewGatherer(0).In(home)
			umask := call(t, "umask")
			if o, i, ok := g.Quick(pid, ip, umask); ok {
				t.Errorf("before anything was read: %+v, %+v", o, i)
			}
			o, i := g.Both(pid, ip, umask)
			quickO, quickI, ok := g.Quick(pid, ip, umask)
			if !ok || !reflect.DeepEqual(o, quickO) || !reflect.DeepEqual(i, quickI) {
				t.Errorf("%v\n%+v\n%+v, want\n%+v\n%+v", ok, quickO, quickI, o, i)
			}
			g.noIoctl.Store(true)
			if _, _, ok := g.Quick(pid, ip, umask); ok {
				t.Error("it reads a list of mappings that may be long")
			}
		})
	}
}

// A file on another mount than the root takes the table of mounts, which the container makes.
func TestQuickReadsNoMounts(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("quick", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	content, err := os.ReadFile(caller(t, true))
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "caller")
	if err := os.WriteFile(exe, content, 0o755); err != nil {
		t.Fatal(err)
	}
	pid, ip := start(t, exec.Command(exe, "own"))
	home, err := HomeOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	g := NewGatherer(0).In(home)
	if o, _ := g.Both(pid, ip, call(t, "umask")); o.Class != judge.Foreign {
		t.Fatalf("%+v", o)
	}
	if o, _, ok := g.Quick(pid, ip, call(t, "umask")); ok {
		t.Errorf("%+v", o)
	}
}
