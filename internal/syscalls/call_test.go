// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"encoding/json"
	"testing"
)

func TestABIText(t *testing.T) {
	for _, abi := range ABIs {
		text, err := json.Marshal(map[ABI]ABI{abi: abi})
		if err != nil {
			t.Fatalf("marshal %s: %v", abi, err)
		}
		var back map[ABI]ABI
		if err := json.Unmarshal(text, &back); err != nil || back[abi] != abi {
			t.Errorf("%s came back from %s as %v, %v", abi, text, back, err)
		}
	}
	for _, abi := range []ABI{0, 5, 255} {
		if text, err := json.Marshal(abi); err == nil {
			t.Errorf("invalid ABI %d marshals as %s", uint8(abi), text)
		}
	}
}

func TestArchitectures(t *testing.T) {
	for _, test := range []struct {
		abi    ABI
		audit  uint32
		oci    string
		goarch string
	}{
		{X86_64, 0xC000003E, "SCMP_ARCH_X86_64", "amd64"},
		{I386, 0x40000003, "SCMP_ARCH_X86", "386"},
		{X32, 0xC000003E, "SCMP_ARCH_X32", ""},
		{ARM64, 0xC00000B7, "SCMP_ARCH_AARCH64", "arm64"},
	} {
		t.Run(test.abi.String(), func(t *testing.T) {
			if got, ok := AuditArch(test.abi); !ok || got != test.audit {
				t.Errorf("AuditArch = %#x, %v, want %#x", got, ok, test.audit)
			}
			if got, ok := OCIArch(test.abi); !ok || got != test.oci {
				t.Errorf("OCIArch = %q, %v, want %q", got, ok, test.oci)
			}
			if got, ok := FromOCIArch(test.oci); !ok || got != test.abi {
				t.Errorf("FromOCIArch(%q) = %s, %v, want %s", test.oci, got, ok, test.abi)
			}
			if got, ok := Native(test.goarch); ok != (test.goarch != "") || ok && got != test.abi {
				t.Errorf("Native(%q) = %s, %v", test.goarch, got, ok)
			}
		})
	}
	for _, abi := range []ABI{0, 5, 255} {
		if _, ok := AuditArch(abi); ok {
			t.Errorf("ABI %d has an AUDIT_ARCH", uint8(abi))
		}
		if _, ok := OCIArch(abi); ok {
			t.Errorf("ABI %d has an OCI name", uint8(abi))
		}
	}
	for _, name := range []string{"", "SCMP_ARCH_ARM", "x86_64"} {
		if abi, ok := FromOCIArch(name); ok {
			t.Errorf("FromOCIArch(%q) = %s", name, abi)
		}
	}
}

func TestFromAudit(t *testing.T) {
	for _, test := range []struct {
		name     string
		arch, nr uint32
		want     Call
		ok       bool
	}{
		{"x86-64", 0xC000003E, 20, Call{X86_64, 20}, true},
		{"x32", 0xC000003E, X32Flag | 520, Call{X32, 520}, true},
		{"x32, first number", 0xC000003E, X32Flag, Call{X32, 0}, true},
		{"i386", 0x40000003, 20, Call{I386, 20}, true},
		{"i386 has no flag", 0x40000003, X32Flag | 20, Call{}, false},
		{"arm64", 0xC00000B7, 63, Call{ARM64, 63}, true},
		{"arm", 0x40000028, 63, Call{}, false},
		{"last number of a set", 0xC000003E, MaxNr - 1, Call{X86_64, MaxNr - 1}, true},
		{"past it", 0xC000003E, MaxNr, Call{}, false},
		{"cancelled by a tracer", 0xC000003E, ^uint32(0), Call{}, false},
	} {
		if got, ok := FromAudit(test.arch, test.nr); got != test.want || ok != test.ok {
			t.Errorf("%s: FromAudit(%#x, %#x) = %v, %v, want %v, %v", test.name, test.arch, test.nr, got, ok, test.want, test.ok)
		}
	}
}

func FuzzParseABI(f *testing.F) {
	for _, s := range []string{"x86_64", "i386", "x32", "arm64", "", "abi5", "X86_64\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if abi, err := ParseABI(s); err == nil && abi.String() != s || err != nil && abi != 0 {
			t.Errorf("ParseABI(%q) = %d (%s), %v", s, uint8(abi), abi, err)
		}
	})
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"read", "#0", "#1023", "#1024", "#-1", "#+1", "#0x10", "# 1", "#4294967296", "##1", "zzz"} {
		f.Add(uint8(X86_64), s)
	}
	f.Fuzz(func(t *testing.T, a uint8, s string) {
		abi := ABI(a)
		nr, ok := Number(abi, s)
		if !ok {
			if nr != 0 {
				t.Errorf("Number(%s, %q) fails with %d", abi, s, nr)
			}
			return
		}
		if nr >= MaxNr {
			t.Fatalf("Number(%s, %q) = %d, which no Set holds", abi, s, nr)
		}
		if again, ok := Number(abi, Name(abi, nr)); !ok || again != nr {
			t.Errorf("Number(%s, %q) = %d, and its name %q is %d, %v", abi, s, nr, Name(abi, nr), again, ok)
		}
	})
}
