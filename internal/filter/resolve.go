// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

var actions = []specs.LinuxSeccompAction{
	specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace, specs.ActAllow,
	specs.ActLog, specs.ActNotify,
}

var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan,
	specs.OpMaskedEqual,
}

// resolve makes the plain profile that an engine would give to the runtime, checking everything on the way.
func (d *document) resolve(native syscalls.ABI) (*specs.LinuxSeccomp, error) {
	if d.BaseProfileName != "" {
		return nil, bad("baseProfileName", "merge the base profile into this one first",
			"this profile is an addition to %s, which is not here", printable(d.BaseProfileName))
	}
	if !slices.Contains(actions, d.DefaultAction) {
		return nil, bad("defaultAction", "a learned profile has SCMP_ACT_ERRNO", "unknown action %q", printable(string(d.DefaultAction)))
	}
	if err := checkErrno("defaultErrnoRet", d.DefaultErrnoRet); err != nil {
		return nil, err
	}
	architectures, err := d.architectures(native)
	if err != nil {
		return nil, err
	}
	if n := len(d.Syscalls); n > maxEntries {
		return nil, bad("syscalls", "group the names by action", "%d entries, the limit is %d", n, maxEntries)
	}
	p := &specs.LinuxSeccomp{
		DefaultAction: d.DefaultAction, DefaultErrnoRet: d.DefaultErrnoRet, Architectures: architectures,
		Flags: d.Flags, ListenerPath: d.ListenerPath, ListenerMetadata: d.ListenerMetadata,
	}
	for i, entry := range d.Syscalls {
		where := fmt.Sprintf("syscalls[%d]", i)
		if entry == nil {
			return nil, bad(where, "", "the entry is null")
		}
		plain, err := entry.check(where)
		if err != nil {
			return nil, err
		}
		if applies(entry.Includes, entry.Excludes, native) {
			p.Syscalls = append(p.Syscalls, plain)
		}
	}
	return p, nil
}

func (d *document) architectures(native syscalls.ABI) ([]specs.Arch, error) {
	if len(d.Architectures) > 0 && len(d.ArchMap) > 0 {
		return nil, bad("archMap", "keep one of them", "the profile has both architectures and archMap")
	}
	if len(d.Architectures) > maxArchs || len(d.ArchMap) > maxArchs {
		return nil, bad("architectures", "", "more than %d architectures", maxArchs)
	}
	listed := d.Architectures
	nativeName, _ := syscalls.OCIArch(native)
	heads := make(map[specs.Arch]bool)
	for i, a := range d.ArchMap {
		if heads[a.Arch] {
			return nil, bad(fmt.Sprintf("archMap[%d]", i), "remove one of them", "%s is there twice", printable(string(a.Arch)))
		}
		heads[a.Arch] = true
		if len(a.SubArches) > maxArchs {
			return nil, bad(fmt.Sprintf("archMap[%d]", i), "", "more than %d architectures", maxArchs)
		}
		if string(a.Arch) == nativeName {
			listed = append([]specs.Arch{a.Arch}, a.SubArches...)
		}
	}
	seen := make(map[specs.Arch]bool)
	for i, a := range listed {
		where := fmt.Sprintf("architectures[%d]", i)
		if seen[a] {
			return nil, bad(where, "remove one of them", "%s is there twice", printable(string(a)))
		}
		seen[a] = true
		if !knownArch(a) {
			return nil, bad(where, "architectures are called SCMP_ARCH_X86_64, SCMP_ARCH_X86, SCMP_ARCH_X32, SCMP_ARCH_AARCH64 …",
				"unknown architecture %q", printable(string(a)))
		}
	}
	return listed, nil
}

func knownArch(a specs.Arch) bool {
	switch a {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
		specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64,
		specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

// check an entry for itself.
func (e *documentEntry) check(where string) (plain specs.LinuxSyscall, err error) {
	names := e.Names
	if e.Name != "" {
		if len(names) > 0 {
			return plain, bad(where, "keep names", "the entry has both name and names")
		}
		names = []string{e.Name}
	}
	switch {
	case len(names) == 0:
		return plain, bad(where, "", "the entry has no names")
	case len(names) > maxNames:
		return plain, bad(where, "no kernel has that many calls", "%d names, the limit is %d", len(names), maxNames)
	case !slices.Contains(actions, e.Action):
		return plain, bad(where+".action", "", "unknown action %q", printable(string(e.Action)))
	case len(e.Args) > maxEntryArgs:
		return plain, bad(where+".args", "", "%d conditions, a call has %d arguments", len(e.Args), argCount)
	}
	for i, name := range names {
		if !plausible(name) {
			return plain, bad(fmt.Sprintf("%s.names[%d]", where, i), "", "%q is no name of a call", printable(name))
		}
	}
	if err := checkErrno(where+".errnoRet", e.ErrnoRet); err != nil {
		return plain, err
	}
	for i, arg := range e.Args {
		at := fmt.Sprintf("%s.args[%d]", where, i)
		if arg.Index >= argCount {
			return plain, bad(at+".index", "", "there is no argument %d", arg.Index)
		}
		if !slices.Contains(operators, arg.Op) {
			return plain, bad(at+".op", "", "unknown operator %q", printable(string(arg.Op)))
		}
	}
	return specs.LinuxSyscall{Names: names, Action: e.Action, ErrnoRet: e.ErrnoRet, Args: e.Args}, nil
}

func checkErrno(where string, errno *uint) error {
	// An errno of 0 makes a refused call look as if it had succeeded.
	if errno != nil && (*errno == 0 || *errno > maxErrno) {
		return bad(where, "1 is EPERM, 38 is ENOSYS", "no errno %d", *errno)
	}
	return nil
}

// plausible reports whether a kernel could call something so.
func plausible(name string) bool {
	for _, c := range []byte(name) {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}
