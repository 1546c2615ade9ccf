// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/hint"
)

// notification is struct seccomp_notif (linux/seccomp.h), the same on every 64-bit architecture.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	data  struct {
		nr   int32
		arch uint32
		ip   uint64
		args [6]uint64
	}
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// IsListener reports whether a descriptor of this process is a seccomp listener.
func IsListener(fd int) bool {
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err == nil && target == "anon_inode:seccomp notify"
}

// notifSizes asks the kernel how large its two structs are: a newer kernel may have longer ones, and writes them whole.
func notifSizes() (notif, resp int, err error) {
	var sizes struct{ notif, resp, data uint16 }
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		err = fmt.Errorf("ask for the size of seccomp notifications: %w", errno)
		return 0, 0, hint.Add(err, "holding calls needs Linux 5.5 or newer with CONFIG_SECCOMP_FILTER")
	}
	notif = max(int(sizes.notif), int(unsafe.Sizeof(notification{})))
	resp = max(int(sizes.resp), int(unsafe.Sizeof(answer{})))
	return notif, resp, nil
}

// mailbox is one worker's memory for a notification and its answer, as long as this kernel's. uint64 aligns it.
type mailbox struct {
	notif, resp []uint64
}

func newMailbox() (*mailbox, error) {
	notif, resp, err := notifSizes()
	if err != nil {
		return nil, err
	}
	return &mailbox{notif: make([]uint64, (notif+7)/8), resp: make([]uint64, (resp+7)/8)}, nil
}

// receive takes the next notification. It must only be called when the listener polled readable: without a waiting call
// it would block. ENOENT says that the caller died meanwhile, EINTR that a signal came first.
func (m *mailbox) receive(listener int) (*notification, unix.Errno) {
	clear(m.notif) // the kernel refuses a buffer that is not zero
	p := unsafe.Pointer(&m.notif[0])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(p))
	runtime.KeepAlive(m)
	return (*notification)(p), errno
}

// send answers a notification. RawSyscall: it never sleeps for long, and the caller runs the sooner.
func (m *mailbox) send(listener int, id uint64, v Verdict) unix.Errno {
	clear(m.resp)
	p := unsafe.Pointer(&m.resp[0])
	a := (*answer)(p)
	a.id = id
	if v.Allow {
		a.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	} else {
		a.error = -int32(v.errno())
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(p))
		if errno != unix.EINTR {
			runtime.KeepAlive(m)
			return errno
		}
	}
}

func idValid(listener int, id uint64) bool {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&id)))
		if errno != unix.EINTR {
			return errno == 0
		}
	}
}

// wakeOnSameCPU asks the kernel (6.6 and newer) to run the caller on the CPU of whoever answers, which saves waking an
// idle one. An older kernel answers EINVAL or ENOTTY, and holds calls just as well.
func wakeOnSameCPU(listener int) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if errno == 0 || errors.Is(errno, unix.EINVAL) || errors.Is(errno, unix.ENOTTY) {
		return nil
	}
	return fmt.Errorf("set the flags of a seccomp listener: %w", errno)
}
