// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// effect is an action with its errno, in one spelling for each.
type effect struct {
	Action specs.LinuxSeccompAction
	Errno  uint
}

// effectOf: an errno counts where the action has one, and is EPERM where the profile names none (so in runc and crun).
func effectOf(action specs.LinuxSeccompAction, errno *uint) effect {
	switch action {
	case specs.ActErrno, specs.ActTrace:
		if errno == nil {
			return effect{action, eperm}
		}
		return effect{action, *errno}
	case specs.ActKill:
		return effect{specs.ActKillThread, 0}
	}
	return effect{action, 0}
}

// passes reports whether the call is made, without anybody being asked.
func (e effect) passes() bool { return e.Action == specs.ActAllow || e.Action == specs.ActLog }

// asks reports whether somebody else decides: a listener or a tracer.
func (e effect) asks() bool { return e.Action == specs.ActNotify || e.Action == specs.ActTrace }

// verdicts on one name: one effect whatever the arguments, or those of the conditions and the default.
type verdicts struct {
	Plain      *effect
	Conditions []condition
}

type condition struct {
	Effect effect
	Args   []specs.LinuxSeccompArg
}

// verdictsByName follows libseccomp as runc and crun drive it: entries that repeat the default are left out; the first
// entry without arguments for a name replaces every other one.
func verdictsByName(p *specs.LinuxSeccomp) (byName map[string]*verdicts, fallback effect) {
	fallback = effectOf(p.DefaultAction, p.DefaultErrnoRet)
	byName = make(map[string]*verdicts)
	for _, entry := range p.Syscalls {
		e := effectOf(entry.Action, entry.ErrnoRet)
		if e == fallback {
			continue
		}
		for _, name := range entry.Names {
			v := byName[name]
			if v == nil {
				v = new(verdicts)
				byName[name] = v
			}
			switch {
			case v.Plain != nil:
			case len(entry.Args) == 0:
				v.Plain, v.Conditions = &e, nil
			default:
				v.Conditions = append(v.Conditions, condition{e, sortedArgs(entry.Args)})
			}
		}
	}
	return byName, fallback
}

func sortedArgs(args []specs.LinuxSeccompArg) []specs.LinuxSeccompArg {
	args = slices.Clone(args)
	for i := range args {
		if args[i].Op != specs.OpMaskedEqual {
			args[i].ValueTwo = 0 // nothing reads it
		}
	}
	slices.SortFunc(args, func(a, b specs.LinuxSeccompArg) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Op, b.Op), cmp.Compare(a.Value, b.Value),
			cmp.Compare(a.ValueTwo, b.ValueTwo))
	})
	return args
}

// Fingerprint is a hash of what a profile decides: 64 hex digits that do not depend on the order or the grouping of its
// entries, nor on the listener. Two profiles with the same fingerprint decide alike; the reverse is not promised.
func Fingerprint(p *specs.LinuxSeccomp) string {
	byName, fallback := verdictsByName(p)
	type line struct {
		Name       string
		Plain      *effect
		Conditions []string
	}
	var canon struct {
		Default effect
		Archs   []specs.Arch
		Lines   []line
	}
	canon.Default = fallback
	canon.Archs = slices.Compact(slices.Sorted(slices.Values(p.Architectures)))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		l := line{Name: name, Plain: byName[name].Plain}
		for _, c := range byName[name].Conditions {
			l.Conditions = append(l.Conditions, string(encode(c)))
		}
		slices.Sort(l.Conditions)
		l.Conditions = slices.Compact(l.Conditions)
		canon.Lines = append(canon.Lines, l)
	}
	sum := sha256.Sum256(encode(canon))
	return hex.EncodeToString(sum[:])
}

// encode values of this file's types, which JSON can always write.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// Allowed is what a profile lets through, by ABI: allowed with any arguments; checked with some arguments, or if a listener
// or a tracer agrees. The sets do not overlap. The runtime adds the native ABI to those that the profile lists, and knows
// no calls that the table does not.
func Allowed(p *specs.LinuxSeccomp, native syscalls.ABI) (allowed, checked map[syscalls.ABI]syscalls.Set) {
	allowed, checked = make(map[syscalls.ABI]syscalls.Set), make(map[syscalls.ABI]syscalls.Set)
	byName, fallback := verdictsByName(p)
	for _, abi := range profileABIs(p, native) {
		var pass, ask syscalls.Set
		for nr := range syscalls.Known(abi).All() {
			v := byName[syscalls.Name(abi, nr)]
			switch {
			case v.passes(fallback):
				pass.Add(nr)
			case v.mayPass(fallback):
				ask.Add(nr)
			}
		}
		allowed[abi], checked[abi] = pass, ask
	}
	return allowed, checked
}

func (v *verdicts) passes(fallback effect) bool {
	if v == nil {
		return fallback.passes()
	}
	if v.Plain != nil {
		return v.Plain.passes()
	}
	blocked := func(c condition) bool { return !c.Effect.passes() }
	return fallback.passes() && !slices.ContainsFunc(v.Conditions, blocked)
}

func (v *verdicts) mayPass(fallback effect) bool {
	open := func(e effect) bool { return e.passes() || e.asks() }
	if v == nil {
		return open(fallback)
	}
	if v.Plain != nil {
		return open(*v.Plain)
	}
	return open(fallback) || slices.ContainsFunc(v.Conditions, func(c condition) bool { return open(c.Effect) })
}

// profileABIs are those a runtime on a host of the native ABI enforces the profile for and Whittle knows.
func profileABIs(p *specs.LinuxSeccomp, native syscalls.ABI) []syscalls.ABI {
	abis := []syscalls.ABI{native}
	for _, arch := range p.Architectures {
		if abi, ok := syscalls.FromOCIArch(string(arch)); ok && sameHost(abi, native) {
			abis = append(abis, abi)
		}
	}
	slices.Sort(abis)
	return slices.Compact(abis)
}

// sameHost reports whether one kernel serves both ABIs.
func sameHost(a, b syscalls.ABI) bool { return (a == syscalls.ARM64) == (b == syscalls.ARM64) }
