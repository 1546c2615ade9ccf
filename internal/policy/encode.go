// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// The JSON form, described in docs/formats.md. Maps are written by encoding/json in the order of their keys.
type (
	wirePolicy struct {
		Version  int                        `json:"version"`
		Workload wireWorkload               `json:"workload"`
		Complete bool                       `json:"complete"`
		Partial  []string                   `json:"partial"`
		Account  Account                    `json:"account"`
		ABIs     map[syscalls.ABI]wireCalls `json:"abis"`
		Settled  Settled                    `json:"settled"`
	}
	wireWorkload struct {
		Image   string   `json:"image"`
		Digest  string   `json:"digest,omitempty"`
		Command []string `json:"command"`
	}
	wirePhases struct {
		Boot   []string `json:"boot"`
		Run    []string `json:"run"`
		Reload []string `json:"reload"`
		Stop   []string `json:"stop"`
	}
	wireRole struct {
		wirePhases
		Birth []string `json:"birth"`
	}
	wireCalls struct {
		Phases wirePhases            `json:"phases"`
		Floor  []string              `json:"floor"`
		Exec   []string              `json:"exec"`
		Roles  map[string]wireRole   `json:"roles"`
		Calls  map[string]Evidence   `json:"calls"`
		Denied map[string]DeniedCall `json:"denied"`
		// Left out where they are empty: files of before them stay as they are.
		Withheld    map[string]string    `json:"withheld,omitempty"`
		Quarantined map[string]string    `json:"quarantined,omitempty"`
		Args        map[string][]ArgRule `json:"args"`
	}
)

// Encode is the policy as a file: indented JSON with a final newline. The same policy gives the same bytes, and Read
// gives it back in normal form.
func Encode(p Policy) ([]byte, error) {
	// Roles are the only part that a container can blow up past MaxSize: name fewer of them until it fits.
	p = Normal(p)
	for roles := maxRoles; ; roles /= 4 {
		named := normal(p, roles)
		// Tried only where it can fit: a container must not make the agent write a hundred MB to throw them away.
		if leastSize(named) <= MaxSize {
			data, err := marshal(named)
			if err != nil || len(data) <= MaxSize {
				return data, err
			}
		}
		if roles == 0 {
			return nil, fmt.Errorf("encode policy of %s: %w", p.Workload.Name(), ErrTooLarge)
		}
	}
}

// leastSize is what the names in roles take at least: indentation, quotes, a comma, a new line and two letters each.
func leastSize(p Policy) (bytes int) {
	for _, calls := range p.ABIs {
		for _, r := range calls.Roles {
			bytes += 18 * r.Birth.Len()
			for _, set := range r.Phases {
				bytes += 18 * set.Len()
			}
		}
	}
	return bytes
}

// MarshalJSON is the same value as Encode's.
func (p Policy) MarshalJSON() ([]byte, error) { return Encode(p) }

// UnmarshalJSON is Read.
func (p *Policy) UnmarshalJSON(data []byte) (err error) {
	*p, err = Read(bytes.NewReader(data))
	return err
}

func marshal(p Policy) ([]byte, error) {
	w := wirePolicy{
		Version:  FormatVersion,
		Workload: wireWorkload{p.Workload.Image, p.Workload.Digest, notNil(p.Workload.Command)},
		Complete: p.Complete,
		Partial:  notNil(p.Partial),
		Account:  p.Account,
		ABIs:     make(map[syscalls.ABI]wireCalls, len(p.ABIs)),
		Settled:  p.Settled,
	}
	for abi, calls := range p.ABIs {
		w.ABIs[abi] = wireCallsOf(abi, calls)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(w); err != nil {
		return nil, fmt.Errorf("encode policy of %s: %w", p.Workload.Name(), err)
	}
	return buf.Bytes(), nil
}

func wireCallsOf(abi syscalls.ABI, c *Calls) wireCalls {
	w := wireCalls{
		Phases:      wirePhasesOf(abi, c.Phases),
		Floor:       c.Floor.Names(abi),
		Exec:        c.Exec.Names(abi),
		Roles:       make(map[string]wireRole, len(c.Roles)),
		Calls:       byName(abi, c.Evidence),
		Denied:      byName(abi, c.Denied),
		Withheld:    byName(abi, c.Withheld),
		Quarantined: byName(abi, c.Quarantined),
		Args:        byName(abi, c.Args),
	}
	for role, r := range c.Roles {
		w.Roles[role] = wireRole{wirePhasesOf(abi, r.Phases), r.Birth.Names(abi)}
	}
	return w
}

func wirePhasesOf(abi syscalls.ABI, m map[Phase]syscalls.Set) wirePhases {
	return wirePhases{m[Boot].Names(abi), m[Run].Names(abi), m[Reload].Names(abi), m[Stop].Names(abi)}
}

func byName[V any](abi syscalls.ABI, m map[uint32]V) map[string]V {
	out := make(map[string]V, len(m))
	for nr, v := range m {
		out[syscalls.Name(abi, nr)] = v
	}
	return out
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// MarshalJSON writes mask and value as hexadecimal text: readers that keep numbers as floating point would round them.
func (r ArgRule) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"index":%d,"mask":"%#x","value":"%#x"}`, r.Index, r.Mask, r.Value), nil
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (r *ArgRule) UnmarshalJSON(data []byte) (err error) {
	*r, err = newScanner(bytes.NewReader(data)).argRule()
	return err
}

// parseHex is the inverse of %#x.
func parseHex(s string) (uint64, error) {
	if len(s) < 3 || s[:2] != "0x" {
		return 0, fmt.Errorf("%q is not a hexadecimal number like \"0x2\"", workload.Printable(s, 40))
	}
	n, err := strconv.ParseUint(s[2:], 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a hexadecimal number of 64 bits", workload.Printable(s, 40))
	}
	return n, nil
}
