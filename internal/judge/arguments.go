// SPDX-License-Identifier: Apache-2.0

package judge

import "github.com/whittle-sec/whittle/internal/syscalls"

// Only registers are looked at: what is in memory can be changed after it was looked at.

const (
	word32     = 0xffffffff // most of these are an int to the kernel; callers leave anything in the upper half
	protWrite  = 0x2
	protExec   = 0x4
	mapAnon    = 0x20
	newSpaces  = 0x7E020000 // the CLONE_NEW* flags of clone; CLONE_NEWTIME is in the bits of the exit signal
	newThread  = 0x00010000 // CLONE_THREAD
	anybody    = 0xffffffff // kill(-1)
	setIDs     = 0o6000     // S_ISUID and S_ISGID
	fileType   = 0o170000
	fileChar   = 0o020000
	fileBlock  = 0o060000
	sockType   = 0xf
	sockRaw    = 3
	sockPacket = 10
)

// use is what the arguments of a call tell of it, beyond its number.
type use struct {
	level   Level
	why     string
	network bool // Sensitive or Grave by who asks, not by level
	settled bool // the level stands, whatever the number alone re-opens
}

// uses are the calls whose arguments tell an everyday use from a dangerous one, by name. ok is false where they tell
// nothing: then the number decides.
var uses = map[string]func(syscalls.ABI, [6]uint64) (u use, ok bool){
	"socket":        func(_ syscalls.ABI, a [6]uint64) (use, bool) { return socketUse(a), true },
	"clone":         func(_ syscalls.ABI, a [6]uint64) (use, bool) { return cloneUse(a) },
	"clone3":        clone3Use,
	"mprotect":      func(_ syscalls.ABI, a [6]uint64) (use, bool) { return protectUse(a), true },
	"pkey_mprotect": func(_ syscalls.ABI, a [6]uint64) (use, bool) { return protectUse(a), true },
	"mmap":          mapUse,
	"mmap2":         mapUse,
	"ioctl":         func(_ syscalls.ABI, a [6]uint64) (use, bool) { return one(ioctls, a[1]) },
	"prctl":         func(_ syscalls.ABI, a [6]uint64) (use, bool) { return one(prctls, a[0]) },
	"personality":   func(_ syscalls.ABI, a [6]uint64) (use, bool) { return personalityUse(a), true },
	"setsockopt":    func(_ syscalls.ABI, a [6]uint64) (use, bool) { return optionUse(a) },
	"kill":          func(_ syscalls.ABI, a [6]uint64) (use, bool) { return killUse(a) },
	"chmod":         func(_ syscalls.ABI, a [6]uint64) (use, bool) { return modeUse(a[1]) },
	"fchmod":        func(_ syscalls.ABI, a [6]uint64) (use, bool) { return modeUse(a[1]) },
	"fchmodat":      func(_ syscalls.ABI, a [6]uint64) (use, bool) { return modeUse(a[2]) },
	"fchmodat2":     func(_ syscalls.ABI, a [6]uint64) (use, bool) { return modeUse(a[2]) },
	"mknod":         func(_ syscalls.ABI, a [6]uint64) (use, bool) { return nodeUse(a[1]) },
	"mknodat":       func(_ syscalls.ABI, a [6]uint64) (use, bool) { return nodeUse(a[2]) },
}

func forbid(why string) use { return use{level: Forbidden, why: why} }

func socketUse(a [6]uint64) use {
	domain, kind, protocol := a[0]&word32, a[1]&sockType, a[2]&word32
	if kind == sockRaw && domain != 16 || kind == sockPacket {
		return forbid("a raw socket makes any packet")
	}
	switch domain {
	case 1:
		return use{level: Ordinary, why: "a socket between processes (AF_UNIX)"}
	case 2, 10:
		return use{network: true, why: "a socket to the network (AF_INET, AF_INET6)"}
	case 16:
		if protocol == 0 {
			return use{level: Ordinary, why: "a netlink socket for addresses and routes, as the C library's resolver makes it"}
		}
		return forbid("a netlink socket to another part of the kernel than routes")
	}
	return forbid("a socket of a family that few services need and many exploits (AF_PACKET, AF_ALG, AF_VSOCK and the like)")
}

func cloneUse(a [6]uint64) (use, bool) {
	switch {
	case a[0]&newSpaces != 0:
		return forbid("it makes namespaces"), true
	case a[0]&newThread != 0:
		return use{level: Ordinary, why: "it starts a thread", settled: true}, true
	}
	return use{}, false
}

// clone3Use: the C library does without clone3 when it is told ENOSYS, and then clone shows its flags.
func clone3Use(syscalls.ABI, [6]uint64) (use, bool) {
	return use{level: Grave, why: "it starts processes, and its flags are in memory, where nobody can look"}, true
}

func protectUse(a [6]uint64) use {
	if a[2]&protExec != 0 {
		return forbid("it makes memory executable: the services that make code do so while they are learned")
	}
	return use{level: Ordinary, why: "it changes the rights of memory, but makes none executable", settled: true}
}

func mapUse(abi syscalls.ABI, a [6]uint64) (use, bool) {
	if abi == syscalls.I386 {
		// Its mmap has the arguments in memory; mmap2 has them in the same registers as the others.
		if a[2]&^0xf != 0 {
			return use{level: Grave, why: "what it maps is not to be seen"}, true
		}
	}
	switch {
	case a[2]&protExec == 0:
		return use{}, false
	case a[2]&protWrite != 0 || a[3]&mapAnon != 0:
		return forbid("it makes memory executable that can be written to or belongs to no file"), true
	}
	return use{level: Sensitive, why: "it maps code of a file: a library that is loaded late"}, true
}

var ioctls = map[uint64]use{
	0x5412: forbid("TIOCSTI types into a terminal for somebody else"),
	0x541C: forbid("TIOCLINUX pastes into a console for somebody else"),
	0x5423: forbid("TIOCSETD loads line disciplines"),
}

var prctls = map[uint64]use{
	35:         forbid("PR_SET_MM rewrites what the kernel knows of a process"),
	0x59616d61: forbid("PR_SET_PTRACER lets others reach into the process"),
	28:         {level: Grave, why: "PR_SET_SECUREBITS changes what root means"},
	47:         {level: Grave, why: "PR_CAP_AMBIENT gives rights to programs"},
	8:          {level: Sensitive, why: "PR_SET_KEEPCAPS keeps rights over a change of user"},
}

func one(of map[uint64]use, value uint64) (use, bool) {
	u, ok := of[value&word32]
	return u, ok
}

func personalityUse(a [6]uint64) use {
	switch a[0] & word32 {
	case word32:
		return use{level: Harmless, why: "it only asks for the personality", settled: true}
	case 0, 8: // PER_LINUX, PER_LINUX32
		return use{level: Ordinary, why: "it sets an ordinary personality"}
	}
	return forbid("it takes protections off: executable data, addresses that can be told")
}

// optionUse: the known gates are in options of odd families and in TCP_ULP; most of a socket's own options and of TCP's
// are everyday.
func optionUse(a [6]uint64) (use, bool) {
	level, option := a[1]&word32, a[2]&word32
	switch {
	case level == 1 && option < 32 && option != 26 && option != 27: // SOL_SOCKET; attaching filters
		return use{level: Ordinary, why: "an everyday option of a socket", settled: true}, true
	case level == 6 && option < 31: // IPPROTO_TCP; 31 is TCP_ULP
		return use{level: Ordinary, why: "an everyday option of TCP", settled: true}, true
	case level == 41 && option == 26: // IPV6_V6ONLY
		return use{level: Ordinary, why: "an everyday option of IPv6", settled: true}, true
	case level == 263 || level == 279 || level == 287: // SOL_PACKET, SOL_ALG, SOL_VSOCK
		return forbid("an option of a family that few services need and many exploits"), true
	case (level == 0 || level == 41) && option >= 64 && option <= 67: // IPT_SO_SET_REPLACE and its like
		return forbid("it replaces the tables of the packet filter"), true
	}
	return use{}, false
}

func killUse(a [6]uint64) (use, bool) {
	switch {
	case a[0]&word32 == anybody:
		return use{level: Grave, why: "it signals every process that it may"}, true
	case a[1]&word32 == 0:
		return use{level: Ordinary, why: "it only asks whether a process is there", settled: true}, true
	}
	return use{}, false
}

func modeUse(mode uint64) (use, bool) {
	if mode&setIDs != 0 {
		return use{level: Grave, why: "it gives a program the rights of its owner"}, true
	}
	return use{}, false
}

func nodeUse(mode uint64) (use, bool) {
	if kind := mode & fileType; kind == fileChar || kind == fileBlock {
		return forbid("it makes a device"), true
	}
	return use{}, false
}
