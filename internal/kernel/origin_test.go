// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestOrigins(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	// The test's own directory may be on a tmpfs itself.
	disk, err := os.MkdirTemp(".", "origins-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(disk) })
	var fs unix.Statfs_t
	if err := unix.Statfs(disk, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Fatalf("the source lies on a tmpfs (%v): no file of a disk to map", err)
	}
	trace := learn(t, o, g, g.command(buildC(t, "origins.c"), disk, "/dev/shm"))
	if trace.Account.NoOrigins != "" {
		t.Fatal(trace.Account.NoOrigins)
	}
	got := map[string]observe.Origin{}
	for _, cell := range trace.Cells {
		for _, seen := range cell.Calls {
			if cell.Lane == observe.LaneService && seen.Call.ABI == syscalls.X86_64 {
				got[seen.Call.String()] = max(got[seen.Call.String()], seen.Origin)
			}
		}
	}
	for call, want := range map[string]observe.Origin{
		"getsid":                 observe.OriginFile,
		"openat":                 observe.OriginFile,
		"mincore":                observe.OriginAnonymous,
		"getpriority":            observe.OriginHeap,
		"sched_getparam":         observe.OriginStack,
		"getpgid":                observe.OriginMemfd,
		"sched_getscheduler":     observe.OriginMemfd,
		"sched_rr_get_interval":  observe.OriginWritable,
		"sched_get_priority_max": observe.OriginFile,
		"sched_get_priority_min": observe.OriginForeign,
		"getresgid":              observe.OriginForeign,
	} {
		if got[call] != want {
			t.Errorf("%s came from %q, want %q", call, got[call], want)
		}
	}
	for call, origin := range got {
		if origin == observe.OriginUnknown {
			t.Errorf("%s: nobody looked", call)
		}
	}
}

// The same program on the same tmpfs: of the container's root file system, and of a mount beside it.
func TestOriginOnATmpfs(t *testing.T) {
	o := open(t)
	program, err := os.ReadFile(buildC(t, "exit.c", "-static", "-nostdlib"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("/dev/shm", "whittle-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.WriteFile(filepath.Join(root, "exit"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path, root string
		want       observe.Origin
	}{
		"its root":           {"/exit", root, observe.OriginFile},
		"a mount of its own": {filepath.Join(root, "exit"), "", observe.OriginForeign},
	} {
		g := newCgroup(t)
		cmd := g.command(test.path)
		cmd.SysProcAttr.Chroot = test.root
		trace := learn(t, o, g, cmd)
		if made(trace, observe.LaneService)[syscalls.X86_64].Empty() {
			t.Errorf("%s: nothing was seen", name)
		}
		for _, cell := range trace.Cells {
			for _, seen := range cell.Calls {
				if cell.Lane == observe.LaneService && seen.Origin != test.want {
					t.Errorf("%s: %v came from %q, want %q", name, seen.Call, seen.Origin, test.want)
				}
			}
		}
	}
}
