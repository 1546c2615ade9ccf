// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// helper is the other process: it puts itself under the filter, all threads, gives its listener away, and does what mode
// says. "after" is the program that exec started: under the filter already.
func helper(mode string) {
	in := bufio.NewReader(os.Stdin)
	if mode == "after" {
		_, errno := held(unix.SYS_GETPPID)
		fmt.Println(int(errno))
		return
	}
	fd, err := install(unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(fd)
	_, _ = in.ReadString('\n')
	_ = unix.Close(fd)
	name, count, _ := strings.Cut(mode, " ")
	n, _ := strconv.Atoi(count)
	switch name {
	case "flood": // n threads, until killed
		for range n {
			go flood(func() { _, _ = held(unix.SYS_GETPPID) })
		}
		select {}
	case "write": // n threads write single bytes to descriptor 3, until killed
		for range n {
			go flood(func() { writeByte(3) })
		}
		select {}
	case "exec":
		go writeByte(3)
		_, _ = in.ReadString('\n') // once that call is held
		err := unix.Exec("/proc/self/exe", []string{"after"}, []string{helperEnv + "=after"})
		fmt.Fprintln(os.Stderr, "exec:", err)
	case "bench":
		bench(in)
	case "exit":
	}
}

func flood(f func()) {
	runtime.LockOSThread()
	for {
		f()
	}
}

var byteToWrite = [1]byte{'x'}

func writeByte(fd uintptr) { _, _ = held(unix.SYS_WRITE, fd, bytePointer(), 1) }

// bench makes as many calls as it is told, and says when they are done.
func bench(in *bufio.Reader) {
	runtime.LockOSThread()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		n, _ := strconv.Atoi(strings.TrimSpace(line))
		begin := time.Now()
		for range n {
			_, _, _ = unix.RawSyscall6(unix.SYS_GETPPID, 0, 0, 0, 0, 0, magic)
		}
		fmt.Println(time.Since(begin).Nanoseconds())
	}
}
