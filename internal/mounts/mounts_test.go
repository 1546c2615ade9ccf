// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const table = `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
361 35 0:50 / / rw,relatime shared:7 propagate_from:2 - overlay overlay rw,lowerdir=/a
37 36 0:51 /a\040-\040tmpfs\040x /b rw - fuse.sshfs host:/ rw
38 36 0:51 / /b rw - ext4
39 36
40 35 0:3 / /usr ro,relatime - tmpfs tmpfs rw
`

func TestFind(t *testing.T) {
	for _, test := range []struct {
		id   uint64
		want string
	}{{36, "ext3"}, {361, "overlay"}, {37, "fuse.sshfs"}, {38, ""}, {39, ""}, {3, ""}, {40, "tmpfs"}} {
		got, err := find(strings.NewReader(table), test.id)
		if got.Type != test.want || (err == nil) != (test.want != "") {
			t.Errorf("mount %d: got %q, %v, want %q", test.id, got.Type, err, test.want)
		}
		if got.ReadOnly != (test.id == 40) {
			t.Errorf("mount %d: read-only is %v", test.id, got.ReadOnly)
		}
	}
	if got, err := find(strings.NewReader(strings.Repeat("x", 1<<20)), 1); err == nil {
		t.Errorf("an endless line gave %v", got)
	}
}

func FuzzFind(f *testing.F) {
	f.Add(table, uint64(36))
	f.Fuzz(func(t *testing.T, lines string, id uint64) {
		if m, err := find(strings.NewReader(lines), id); err == nil && !strings.Contains(lines, " - "+m.Type+" ") {
			t.Errorf("%q of mount %d is not in %q", m.Type, id, lines)
		}
	})
}

func TestOf(t *testing.T) {
	proc, err := unix.Open("/proc/self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(proc) }()
	m, err := Of(proc, proc)
	if err != nil || m.Type != "proc" || m.Local() || m.InMemory() {
		t.Errorf("the mount of /proc/self is %+v, %v", m, err)
	}
}
