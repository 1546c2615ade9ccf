// SPDX-License-Identifier: Apache-2.0

// Package syscalls names the system calls of each ABI and holds sets of them. It decides nothing about them.
package syscalls

import (
	"fmt"
	"strconv"
	"strings"
)

// ABI is one system-call interface of the kernel. The same number means different calls in different ABIs: number 20 is
// writev on x86-64 and getpid on i386.
type ABI uint8

// The zero ABI is invalid. The values are shared with bpf/whittle.h.
const (
	X86_64 ABI = 1
	I386   ABI = 2
	X32    ABI = 3
	ARM64  ABI = 4
)

// ABIs lists every ABI that Whittle knows, in the order of their values.
var ABIs = [...]ABI{X86_64, I386, X32, ARM64}

var abiNames = [...]string{X86_64: "x86_64", I386: "i386", X32: "x32", ARM64: "arm64"}

func (a ABI) String() string {
	if int(a) < len(abiNames) && abiNames[a] != "" {
		return abiNames[a]
	}
	return "abi" + strconv.Itoa(int(a))
}

// ParseABI is the inverse of String.
func ParseABI(s string) (ABI, error) {
	for _, a := range ABIs {
		if abiNames[a] == s {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown ABI %q", s)
}

func (a ABI) MarshalText() ([]byte, error) {
	if a == 0 || int(a) >= len(abiNames) {
		return nil, fmt.Errorf("marshal invalid ABI %d", a)
	}
	return []byte(a.String()), nil
}

func (a *ABI) UnmarshalText(text []byte) (err error) {
	*a, err = ParseABI(string(text))
	return err
}

// Call is one system call of one ABI. For x32 the number is stored without the x32 flag (0x40000000).
type Call struct {
	ABI ABI
	Nr  uint32
}

// String is the name of the call, or "#" and its decimal number where the table has none.
func (c Call) String() string { return Name(c.ABI, c.Nr) }

// Name of a number in an ABI, or "#" and the decimal number where the table has none.
func Name(a ABI, nr uint32) string {
	if n, ok := lookupName(a, nr); ok {
		return n
	}
	return "#" + strconv.FormatUint(uint64(nr), 10)
}

// Number of a call by its name, which may also be written "#" and a decimal number.
func Number(a ABI, name string) (nr uint32, ok bool) {
	if digits, is := strings.CutPrefix(name, "#"); is {
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n >= MaxNr {
			return 0, false
		}
		return uint32(n), true
	}
	return lookupNumber(a, name)
}
