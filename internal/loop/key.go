// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"encoding/json"
	"fmt"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Key is what is learned: a call of a role in a phase.
type Key struct {
	Call  syscalls.Call
	Role  string
	Phase policy.Phase
}

// maxRole bounds what is kept of a role: its program's path comes from a container.
const maxRole = 512

func (k Key) valid() bool {
	_, known := syscalls.AuditArch(k.Call.ABI)
	return known && k.Call.Nr < syscalls.MaxNr && len(k.Role) <= maxRole
}

// String is for people, for instance "execve by /usr/sbin/nginx:1, run".
func (k Key) String() string {
	name := k.Call.String()
	if k.Call.ABI != syscalls.X86_64 && k.Call.ABI != syscalls.ARM64 {
		name += " (" + k.Call.ABI.String() + ")"
	}
	return fmt.Sprintf("%s by %s, %s", name, workload.Printable(k.Role, 128), k.Phase)
}

type keyJSON struct {
	ABI   syscalls.ABI `json:"abi"`
	Call  string       `json:"call"`
	Role  string       `json:"role"`
	Phase policy.Phase `json:"phase"`
}

// MarshalJSON writes the call by its name: a number alone means something else in another ABI. The zero Key is null.
func (k Key) MarshalJSON() ([]byte, error) {
	if k == (Key{}) {
		return []byte("null"), nil
	}
	return json.Marshal(keyJSON{k.Call.ABI, syscalls.Name(k.Call.ABI, k.Call.Nr), k.Role, k.Phase})
}

func (k *Key) UnmarshalJSON(data []byte) error {
	*k = Key{}
	if string(data) == "null" {
		return nil
	}
	var j keyJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	nr, ok := syscalls.Number(j.ABI, j.Call)
	read := Key{Call: syscalls.Call{ABI: j.ABI, Nr: nr}, Role: j.Role, Phase: j.Phase}
	if !ok || !read.valid() {
		return fmt.Errorf("no call %q of a role in ABI %s", workload.Printable(j.Call, 32), j.ABI)
	}
	*k = read
	return nil
}
