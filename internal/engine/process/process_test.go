// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestOwnProcess(t *testing.T) {
	p, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ns, err := p.MountNS()
	if err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if want := "mnt:[" + strconv.FormatUint(ns, 10) + "]"; link != want {
		t.Errorf("mount namespace %s, the kernel says %s", want, link)
	}
	if _, err := p.CgroupID(); err != nil {
		t.Errorf("cgroup id: %v", err)
	}
	if err := p.Alive(); err != nil {
		t.Errorf("alive: %v", err)
	}
}

// A process that exits, first as a zombie and then reaped, is gone.
func TestGone(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Alive(); err != nil {
		t.Errorf("before it exits: %v", err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := p.Alive(); !errors.Is(err, ErrGone) {
		t.Errorf("after it was reaped: %v, want ErrGone", err)
	}
	for _, pid := range []int{-1, 0, 1 << 30} {
		if _, err := Open(pid); err == nil {
			t.Errorf("Open(%d) succeeded", pid)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unified", "0::/system.slice/a.service\n", "/system.slice/a.service"},
		{"hybrid", "9:name=systemd:/x\n4:memory:/y\n0::/libpod_parent/z\n", "/libpod_parent/z"},
		{"root", "0::/\n", "/"},
		{"no newline", "0::/a", "/a"},
		{"v1 only", "4:memory:/y\n", ""},
		{"empty", "", ""},
		{"outside", "0::/../../a\n", ""},
		{"dots inside", "0::/a/../b\n", ""},
		{"deleted", "0::/a (deleted)\n", ""},
		{"relative", "0::a\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseCgroup(tt.file)
			if got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("parseCgroup(%q) = %q, %v; want %q", tt.file, got, err, tt.want)
			}
		})
	}
}

func TestCgroupDir(t *testing.T) {
	const (
		v1      = "36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n"
		hybrid  = v1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
		unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		below   = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
		spaced  = "30 23 0:26 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n"
	)
	tests := []struct{ name, mounts, cgroup, want string }{
		{"unified", unified, "/a/b", "/sys/fs/cgroup/a/b"},
		{"hybrid", hybrid, "/a/b", "/sys/fs/cgroup/unified/a/b"},
		{"v1 only", v1, "/a", ""},
		{"below", below, "/docker/abc/d", "/sys/fs/cgroup/d"},
		{"below itself", below, "/docker/abc", "/sys/fs/cgroup"},
		{"beside", below, "/docker/abcd", ""},
		{"escaped", spaced, "/a", "/mnt/a b/a"},
		{"nothing", "", "/a", ""},
		{"short", "1 2 - cgroup2 x y\n", "/a", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := cgroupDir(tt.mounts, tt.cgroup)
			if got != tt.want || ok != (tt.want != "") {
				t.Errorf("cgroupDir(%q) = %q, %v; want %q", tt.cgroup, got, ok, tt.want)
			}
		})
	}
}

func FuzzParseCgroup(f *testing.F) {
	f.Add("0::/a\n", "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
	f.Fuzz(func(t *testing.T, file, mounts string) {
		cgroup, err := parseCgroup(file)
		if err != nil {
			return
		}
		if strings.Contains(cgroup+"/", "/../") {
			t.Errorf("%q leads upwards", cgroup)
		}
		cgroupDir(mounts, cgroup)
	})
}
