// SPDX-License-Identifier: Apache-2.0

package syscalls

import "sort"

//go:generate go run ./gen -headers ${LINUX_LIBC_DEV}

// X32Flag marks x32 numbers in a register and in seccomp_data.nr. Calls and tables are without it.
const X32Flag = 0x40000000

// tables are indexed by ABI. They are arrays that the compiler lays out: no start-up cost, no allocation on look-up.
var tables = [...]struct {
	names  []string
	byName []uint16
}{
	X86_64: {x86_64Names[:], x86_64ByName[:]},
	I386:   {i386Names[:], i386ByName[:]},
	X32:    {x32Names[:], x32ByName[:]},
	ARM64:  {arm64Names[:], arm64ByName[:]},
}

func lookupName(a ABI, nr uint32) (string, bool) {
	if int(a) >= len(tables) || int64(nr) >= int64(len(tables[a].names)) {
		return "", false
	}
	n := tables[a].names[nr]
	return n, n != ""
}

func lookupNumber(a ABI, name string) (uint32, bool) {
	if int(a) >= len(tables) {
		return 0, false
	}
	t := &tables[a]
	i := sort.Search(len(t.byName), func(i int) bool { return t.names[t.byName[i]] >= name })
	if i == len(t.byName) || t.names[t.byName[i]] != name {
		return 0, false
	}
	return uint32(t.byName[i]), true
}

// Last is the largest number in the table of the ABI. Profiles answer ENOSYS past it, as an older kernel would, so that
// programs fall back. It is 0 for an ABI without a table.
func Last(a ABI) uint32 {
	if int(a) >= len(tables) || len(tables[a].names) == 0 {
		return 0
	}
	return uint32(len(tables[a].names) - 1)
}

// Known is the set of the numbers that have a name.
func Known(a ABI) (s Set) {
	if int(a) >= len(tables) {
		return s
	}
	for _, nr := range tables[a].byName {
		s.Add(uint32(nr))
	}
	return s
}
