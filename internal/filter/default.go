// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"slices"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// defaultCaps of an unprivileged container of Docker. Podman's are a subset.
var defaultCaps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// nativeNames of an ABI in the includes and excludes of a Docker profile.
var nativeNames = map[syscalls.ABI]string{syscalls.X86_64: "amd64", syscalls.ARM64: "arm64"}

// DefaultProfile is the one that the engines give to an unprivileged container on a host with this native ABI and a
// recent kernel.
func DefaultProfile(native syscalls.ABI) (*specs.LinuxSeccomp, error) {
	d := moby.DefaultProfile()
	doc := document{DefaultAction: d.DefaultAction, DefaultErrnoRet: d.DefaultErrnoRet, ArchMap: d.ArchMap}
	for _, s := range d.Syscalls {
		doc.Syscalls = append(doc.Syscalls, &documentEntry{
			Names: s.Names, Action: s.Action, ErrnoRet: s.ErrnoRet, Args: s.Args, Includes: s.Includes, Excludes: s.Excludes,
		})
	}
	p, err := doc.resolve(native)
	if err != nil {
		return nil, fmt.Errorf("read the engine's default profile: %w", err)
	}
	return p, nil
}

// applies reports whether an entry holds for an unprivileged container on this host, as Docker decides it: excluded by
// any of what it excludes, included only with all of what it includes. The kernel is taken to be recent.
func applies(includes, excludes *moby.Filter, native syscalls.ABI) bool {
	hasCap := func(c string) bool { return slices.Contains(defaultCaps, c) }
	lacksCap := func(c string) bool { return !hasCap(c) }
	if x := excludes; x != nil {
		if slices.Contains(x.Arches, nativeNames[native]) || slices.ContainsFunc(x.Caps, hasCap) || x.MinKernel != nil {
			return false
		}
	}
	if i := includes; i != nil {
		if len(i.Arches) > 0 && !slices.Contains(i.Arches, nativeNames[native]) || slices.ContainsFunc(i.Caps, lacksCap) {
			return false
		}
	}
	return true
}
