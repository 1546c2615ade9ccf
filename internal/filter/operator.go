// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"sigs.k8s.io/yaml"
)

const operatorGroup = "security-profiles-operator.x-k8s.io"

// Operator makes the security-profiles-operator's SeccompProfile of a profile, as YAML. The name must be a Kubernetes
// object name; it errs otherwise. The operator has no listener: held calls cannot be exported.
func Operator(name string, p *specs.LinuxSeccomp) ([]byte, error) {
	if !objectName(name) {
		return nil, fmt.Errorf("export SeccompProfile: %q is no Kubernetes object name "+
			"(at most 253 of a-z, 0-9, '-' and '.', a letter or digit at both ends)", printable(name))
	}
	for _, entry := range p.Syscalls {
		if entry.Action == specs.ActNotify {
			return nil, fmt.Errorf("export SeccompProfile: %s is held, and the operator has no listener", entry.Names[0])
		}
	}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": operatorGroup + "/v1beta1",
		"kind":       "SeccompProfile",
		"metadata":   map[string]any{"name": name},
		"spec":       p,
	})
	if err != nil {
		return nil, fmt.Errorf("export SeccompProfile: %w", err)
	}
	return text, nil
}

func objectName(s string) bool {
	edge := func(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' }
	for _, c := range []byte(s) {
		if !edge(c) && c != '-' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= 253 && edge(s[0]) && edge(s[len(s)-1])
}
