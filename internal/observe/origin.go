// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"slices"
)

// Origin is the kind of memory that the instruction of a call lies in. The later, the worse. The zero Origin says that
// nobody looked, or could.
type Origin uint8

// The values are shared with bpf/whittle.h, the names with package judge.
const (
	OriginUnknown   Origin = iota
	OriginFile             // a file's, as it was mapped
	OriginVDSO             // the kernel's own page: all calls of most i386 programs come from there
	OriginWritable         // a file's, but it may be written or was
	OriginForeign          // of a file on a tmpfs, or one that was deleted
	OriginMemfd            // of a file that never had a name, or memory that is shared
	OriginHeap             // the first one, of brk
	OriginStack            // the first thread's
	OriginAnonymous        // any other that is no file's: a thread's stack, the heap of a large allocation, a JIT's code
)

var originNames = [...]string{"", "file", "vdso", "writable", "foreign", "memfd", "heap", "stack", "anonymous"}

// String is its name, "" for the zero Origin.
func (o Origin) String() string {
	if int(o) < len(originNames) {
		return originNames[o]
	}
	return fmt.Sprintf("origin%d", uint8(o))
}

// MarshalText is String.
func (o Origin) MarshalText() ([]byte, error) {
	if int(o) >= len(originNames) {
		return nil, fmt.Errorf("marshal invalid origin %d", uint8(o))
	}
	return []byte(originNames[o]), nil
}

// UnmarshalText is the inverse of MarshalText.
func (o *Origin) UnmarshalText(text []byte) error {
	i := slices.Index(originNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown origin %q", text[:min(len(text), 40)])
	}
	*o = Origin(i)
	return nil
}
