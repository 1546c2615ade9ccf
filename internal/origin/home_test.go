// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// In a container: an overlay as its root, a pid namespace of its own, a volume that it can write to, and one that it can
// not. What it wrote since it started is foreign, also where another process of it maps it.
func TestOriginInContainer(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "unshare", "mount", "chroot", "sh")
	exe := caller(t, true)
	dir, err := os.MkdirTemp("/var/tmp", "origin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	content, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lower/caller", "volume/old", "readonly/old", "lower/old", "lower/touched"} {
		path := filepath.Join(dir, name)
		for _, sub := range []string{"", "volume", "readonly", "tmp"} {
			if err := os.MkdirAll(filepath.Join(dir, "lower", sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		age(t, path)
	}
	for _, test := range []struct {
		args string
		want judge.Class
		why  string
	}{
		{"own", judge.File, ""},
		{"file /old", judge.File, ""},
		{"dropped /new", judge.Foreign, "after the container had started"},
		{"dropped /tmp/new", judge.Foreign, "in memory"},
		{"file /volume/old", judge.Foreign, "volume"},
		{"file /readonly/old", judge.File, ""},
		{"deleted /old", judge.Foreign, "deleted"},
		{"patched /old", judge.Writable, "modified"},
		{"file /touched", judge.Foreign, "after the container had started"},
	} {
		t.Run(test.args, func(t *testing.T) {
			upper := t.TempDir()
			// All mounts end with the mount namespace, which ends with its last process. The container's first process
			// forks the one that is asked about.
			cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-ec", `
				cd "$1"; mkdir -p "$2/merged" "$2/upper" "$2/work"
				mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$2/upper,workdir=$2/work" "$2/merged"
				mount --bind volume "$2/merged/volume"; mount --bind readonly "$2/merged/readonly"
				mount -o remount,bind,ro "$2/merged/readonly"; mount -t tmpfs tmpfs "$2/merged/tmp"
				touch "$2/merged/touched"
				chroot "$2/merged" /caller $3; exit 0`, "sh", dir, upper, test.args)
			outside, ip := start(t, cmd)
			first := child(t, outside)
			pid := child(t, first)
			home, err := HomeOf(first)
			if err != nil {
				t.Fatal(err)
			}
			// The first process of this container has the host's root; a real one's has the container's.
			if inside, err := HomeOf(pid); err != nil {
				t.Fatal(err)
			} else {
				home.mount, home.local = inside.mount, inside.local
			}
			both(t, func(t *testing.T, g *Gatherer) {
				got := g.In(home).Origin(pid, ip)
				if got.Class != test.want || !strings.Contains(got.Why, test.why) {
					t.Errorf("the origin is %+v, want class %d, why %q", got, test.want, test.why)
				}
			})
		})
	}
}

// child is the only child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	id := strconv.Itoa(pid)
	list, err := os.ReadFile("/proc/" + id + "/task/" + id + "/children")
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(list)))
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// Without a home, it is the one of the container's first process.
func TestFindHome(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "unshare", "sh")
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", `sh -c '"$0" own; exit 0' "$0"; exit 0`, caller(t, true))
	outside, _ := start(t, cmd)
	first := child(t, outside)
	pid := child(t, child(t, first))
	want, err := HomeOf(first)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewGatherer(0).open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	got, err := findHome(p)
	if err != nil {
		t.Fatal(err)
	}
	if late := got.began.Sub(want.began).Abs(); late > 5_000_000 || got.mount != want.mount || got.shared != want.shared {
		t.Errorf("the home is %+v, want %+v", got, want)
	}
}
