// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/judge"
)

func TestSocket(t *testing.T) {
	open := func(family, kind int) int {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	// A file may have any name.
	file, err := os.Create(filepath.Join(t.TempDir(), "socket:[1]"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g := NewGatherer(0)
	for _, tt := range []struct {
		name string
		fd   int
		want judge.Socket
	}{
		{"unix stream", open(unix.AF_UNIX, unix.SOCK_STREAM), judge.Unix},
		{"unix datagram", open(unix.AF_UNIX, unix.SOCK_DGRAM), judge.Unix},
		{"unix seqpacket", open(unix.AF_UNIX, unix.SOCK_SEQPACKET), judge.Unix},
		{"netlink", open(unix.AF_NETLINK, unix.SOCK_RAW), judge.Netlink},
		{"tcp", open(unix.AF_INET, unix.SOCK_STREAM), judge.NoSocket},
		{"udp", open(unix.AF_INET6, unix.SOCK_DGRAM), judge.NoSocket},
		{"a file", int(file.Fd()), judge.NoSocket},
		{"none", 1 << 20, judge.NoSocket},
		{"less than none", -1, judge.NoSocket},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, fd := range []uint64{uint64(tt.fd), uint64(uint32(tt.fd)) | 0xdead<<32} { // the kernel looks at the lower half
				if got := g.Socket(os.Getpid(), fd); got != tt.want {
					t.Errorf("Socket(%#x) = %v, want %v", fd, got, tt.want)
				}
			}
		})
	}
	if got := g.Socket(1<<30, 0); got != judge.NoSocket {
		t.Errorf("of nobody: %v", got)
	}
}

func BenchmarkSocket(b *testing.B) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	g, pid := NewGatherer(0), os.Getpid()
	for b.Loop() {
		g.Socket(pid, uint64(fd))
	}
}
