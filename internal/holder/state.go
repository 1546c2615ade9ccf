// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What a hand-over may carry. A Kubernetes annotation can have 256 KB; those that are too long are left out, and anything
// else that is too long refuses the whole.
const (
	maxState       = 64 << 10
	maxContainer   = 256
	maxBundle      = unix.PathMax
	maxMetadata    = 8 << 10
	maxAnnotation  = 1 << 10
	maxAnnotations = 8 << 10
)

// parseState reads the ContainerProcessState with which a runtime hands one listener over.
func parseState(data []byte) (Kept, error) {
	if len(data) > maxState {
		return Kept{}, fmt.Errorf("read the container's state: more than %d bytes", maxState)
	}
	var s specs.ContainerProcessState
	if err := json.Unmarshal(data, &s); err != nil {
		return Kept{}, fmt.Errorf("read the container's state: %w", err)
	}
	if !slices.Equal(s.Fds, []string{specs.SeccompFdName}) {
		return Kept{}, fmt.Errorf("read the container's state: it names %d descriptors, want %q only", len(s.Fds), specs.SeccompFdName)
	}
	k := Kept{Container: s.State.ID, PID: s.Pid, Metadata: s.Metadata, Bundle: s.State.Bundle, Annotations: s.State.Annotations}
	if err := k.check(); err != nil {
		return Kept{}, fmt.Errorf("read the container's state: %w", err)
	}
	return k, nil
}

// check and shorten what came from outside.
func (k *Kept) check() error {
	switch {
	case k.Container == "" || len(k.Container) > maxContainer || !plain(k.Container) || strings.ContainsRune(k.Container, '/'):
		return errors.New("the container's id is empty, too long or has odd characters")
	case k.PID < 0 || k.PID > 1<<22: // the kernel's PID_MAX_LIMIT
		return fmt.Errorf("no process has pid %d", k.PID)
	case len(k.Metadata) > maxMetadata:
		return fmt.Errorf("the metadata has more than %d bytes", maxMetadata)
	case len(k.Bundle) > maxBundle || !plain(k.Bundle):
		return errors.New("the bundle's path is too long or has odd characters")
	}
	kept, size := map[string]string{}, 0
	for _, key := range slices.Sorted(maps.Keys(k.Annotations)) {
		value := k.Annotations[key]
		if n := len(key) + len(value); len(key) <= maxAnnotation && len(value) <= maxAnnotation && size+n <= maxAnnotations {
			kept[key], size = value, size+n
		}
	}
	k.Annotations = kept
	if len(kept) == 0 {
		k.Annotations = nil
	}
	return nil
}

// plain text has no control characters and is UTF-8.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// isListener tells a seccomp listener from any other descriptor. The kernel names it, nobody else can.
func isListener(fd int) bool {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err == nil && name == "anon_inode:seccomp notify"
}

// hasHungUp tells whether the last task under the listener's filter is gone.
func hasHungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLHUP != 0
}

// kcmpFile is KCMP_FILE of linux/kcmp.h, which x/sys lacks.
const kcmpFile = 0

// Same tells whether two descriptors of this process are one listener. Where the kernel cannot tell, it is false.
func Same(a, b int) bool {
	pid := uintptr(os.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	return errno == 0 && order == 0
}
