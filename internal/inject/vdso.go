// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// maxVDSO bounds the image that is searched; the kernel's has two to four pages.
const maxVDSO = 1 << 16

// sites knows where in the vDSO the call instructions are. Processes of one kernel and ABI have the same image at different
// addresses; the bytes are looked at in each process all the same.
type sites struct {
	offsets map[syscalls.ABI][]uint64
}

// vdsoOf a process: the address and length of its executable part, 0 where it has none.
func vdsoOf(pid int) (base, length uint64, err error) {
	raw, err := readFile(procPath(pid, "/maps"), maxProcFile)
	if err != nil {
		return 0, 0, err
	}
	base, length = parseVDSO(raw)
	return base, length, nil
}

// parseVDSO of a maps file. No file can have the name: the kernel writes it only for its own mapping, and paths begin with
// a slash.
func parseVDSO(maps []byte) (base, length uint64) {
	for len(maps) > 0 {
		line, rest, _ := bytes.Cut(maps, []byte("\n"))
		maps = rest
		f := strings.Fields(string(line))
		if len(f) != 6 || f[5] != "[vdso]" || len(f[1]) != 4 || f[1][2] != 'x' {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		first, err1 := strconv.ParseUint(from, 16, 64)
		last, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil || last <= first || last-first > maxVDSO {
			continue
		}
		return first, last - first
	}
	return 0, 0
}

// find a call instruction in the process: in its vDSO, or else the one that the stopped thread has just made. No text is
// written for it, so running threads are safe.
func (s *sites) find(t *target, regs *registers, abi syscalls.ABI) (uint64, error) {
	want := callInsn(abi)
	got := make([]byte, len(want))
	for _, off := range s.offsets[abi] {
		if t.vdso != 0 && off+insnLen <= t.vdsoLen && t.mem.read(got, t.vdso+off) && bytes.Equal(got, want) {
			return t.vdso + off, nil
		}
	}
	if off, ok := s.search(t, want); ok {
		if s.offsets == nil {
			s.offsets = map[syscalls.ABI][]uint64{}
		}
		if len(s.offsets[abi]) < 8 { // a hostile process can have any number of images
			s.offsets[abi] = append(s.offsets[abi], off)
		}
		return t.vdso + off, nil
	}
	if at := programCounter(regs) - insnLen; t.mem.read(got, at) && bytes.Equal(got, want) {
		return at, nil
	}
	return 0, fmt.Errorf("find a call instruction in process %d: it has none that can be trusted", t.pid)
}

func (s *sites) search(t *target, want []byte) (uint64, bool) {
	if t.vdso == 0 {
		return 0, false
	}
	image := make([]byte, t.vdsoLen)
	if !t.mem.read(image, t.vdso) {
		return 0, false
	}
	for at := 0; ; {
		i := bytes.Index(image[at:], want)
		if i < 0 {
			return 0, false
		}
		at += i
		if at%insnLen == 0 || native == syscalls.X86_64 {
			return uint64(at), true
		}
		at++
	}
}
