// SPDX-License-Identifier: Apache-2.0

package syscalls

// arches are the names of the ABIs elsewhere: the AUDIT_ARCH_* values of linux/audit.h, which seccomp_data.arch holds,
// and libseccomp's names, which the OCI runtime specification uses. x86-64 and x32 share one AUDIT_ARCH: only X32Flag in
// the number tells them apart.
var arches = [...]struct {
	audit uint32
	oci   string
}{
	X86_64: {0xC000003E, "SCMP_ARCH_X86_64"},
	I386:   {0x40000003, "SCMP_ARCH_X86"},
	X32:    {0xC000003E, "SCMP_ARCH_X32"},
	ARM64:  {0xC00000B7, "SCMP_ARCH_AARCH64"},
}

// AuditArch is the AUDIT_ARCH_* value of the ABI, as seccomp_data.arch has it.
func AuditArch(a ABI) (arch uint32, ok bool) {
	if int(a) >= len(arches) {
		return 0, false
	}
	return arches[a].audit, arches[a].audit != 0
}

// FromAudit makes a Call of seccomp_data.arch and seccomp_data.nr; it takes X32Flag off. It fails for an architecture
// that Whittle does not know and for a number that no Set holds, -1 (a call that a tracer cancelled) among them.
func FromAudit(arch, nr uint32) (Call, bool) {
	c := Call{Nr: nr}
	switch arch {
	case arches[X86_64].audit:
		c.ABI = X86_64
		if nr&X32Flag != 0 && nr != ^uint32(0) {
			c = Call{X32, nr &^ X32Flag}
		}
	case arches[I386].audit:
		c.ABI = I386
	case arches[ARM64].audit:
		c.ABI = ARM64
	default:
		return Call{}, false
	}
	if c.Nr >= MaxNr {
		return Call{}, false
	}
	return c, true
}

// OCIArch is the name of the ABI in an OCI seccomp profile.
func OCIArch(a ABI) (name string, ok bool) {
	if int(a) >= len(arches) {
		return "", false
	}
	return arches[a].oci, arches[a].oci != ""
}

// FromOCIArch is the inverse of OCIArch.
func FromOCIArch(name string) (ABI, bool) {
	for _, a := range ABIs {
		if arches[a].oci == name {
			return a, true
		}
	}
	return 0, false
}

// Native is the ABI of programs built for a GOARCH.
func Native(goarch string) (ABI, bool) {
	switch goarch {
	case "amd64":
		return X86_64, true
	case "386":
		return I386, true
	case "arm64":
		return ARM64, true
	}
	return 0, false
}
