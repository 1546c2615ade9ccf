// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"slices"

	"github.com/cilium/ebpf/btf"
)

// noOrigins is why the programs cannot tell what memory a call comes from, or "". It is asked of what the loader asks when
// it decides whether they try (bpf/origin.h).
func noOrigins() string {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return "what the kernel can is not known: " + err.Error()
	}
	var helpers *btf.Enum
	if err := spec.TypeByName("bpf_func_id", &helpers); err != nil {
		return "what the kernel can is not known: " + err.Error()
	}
	finds := func(v btf.EnumValue) bool { return v.Name == "BPF_FUNC_find_vma" }
	if !slices.ContainsFunc(helpers.Values, finds) {
		return "this kernel has no bpf_find_vma (Linux 5.17)"
	}
	return ""
}
