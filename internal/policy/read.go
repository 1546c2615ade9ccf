// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Read a policy in its JSON form. The input may come from anywhere: at most MaxSize bytes are read, unknown keys and
// names are errors. The errors that a caller may branch on are *VersionError, *UnknownCallError and ErrTooLarge; all but
// those of the reader have hints where there is something to do. The policy is in normal form.
func Read(r io.Reader) (Policy, error) {
	s := newScanner(&limited{r, MaxSize})
	p, err := s.policy()
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return Policy{}, err
	}
	return Normal(p), nil
}

func (s *scanner) policy() (p Policy, err error) {
	missing := map[string]bool{"version": true, "workload": true, "abis": true}
	err = s.object(func(key string) error {
		delete(missing, key)
		switch key {
		case "version":
			return s.version()
		case "workload":
			return s.workload(&p.Workload)
		case "complete":
			return s.boolean(&p.Complete)
		case "partial":
			return s.labels(&p.Partial, maxReasons)
		case "account":
			return s.account(&p.Account)
		case "abis":
			return s.abis(&p)
		case "settled":
			return s.settled(&p.Settled)
		}
		if looksLikeOCI(key) {
			return &SyntaxError{Offset: s.dec.InputOffset(), Err: fmt.Errorf("unknown key %q", key),
				hint: "this looks like an OCI seccomp profile, which has to be imported"}
		}
		return s.unknown(key)
	})
	if err != nil {
		return p, err
	}
	for _, key := range []string{"version", "workload", "abis"} {
		if missing[key] {
			return p, s.failf("%q is missing", key)
		}
	}
	if p.Complete && len(p.Partial) > 0 {
		return p, s.failf(`"complete" is true, but "partial" has reasons why not`)
	}
	return p, nil
}

func (s *scanner) version() error {
	var v uint64
	if err := s.uint(&v, math.MaxUint64); err != nil {
		return err
	}
	if v != FormatVersion {
		return &VersionError{v}
	}
	return nil
}

func (s *scanner) workload(w *workload.Workload) error {
	return s.object(func(key string) error {
		switch key {
		case "image":
			return s.text(&w.Image, 4096)
		case "digest":
			return s.text(&w.Digest, 256)
		case "command":
			return s.array(1<<17, func() error {
				var arg string
				err := s.text(&arg, MaxSize)
				w.Command = append(w.Command, arg)
				return err
			})
		}
		return s.unknown(key)
	})
}

func (s *scanner) account(a *Account) error {
	return s.object(func(key string) error {
		switch key {
		case "runs":
			return uintAs(s, &a.Runs, math.MaxInt32)
		case "late_runs":
			return uintAs(s, &a.LateRuns, math.MaxInt32)
		case "losses":
			a.Losses = make(map[string]uint64)
			return s.object(func(name string) error {
				var n uint64
				err := s.uint(&n, math.MaxUint64)
				if a.Losses[name] = n; len(a.Losses) > maxCounters {
					return fmt.Errorf("more than %d counters", maxCounters)
				}
				return err
			})
		case "unknown_numbers":
			return s.uint(&a.UnknownNumbers, math.MaxUint64)
		case "recorded":
			return s.uint(&a.Recorded, math.MaxUint64)
		case "drained":
			return s.uint(&a.Drained, math.MaxUint64)
		case "io_uring":
			return s.boolean(&a.IOUring)
		case "gaps":
			return s.labels(&a.Gaps, maxReasons)
		}
		return s.unknown(key)
	})
}

func (s *scanner) settled(v *Settled) error {
	return s.object(func(key string) error {
		switch key {
		case "settled":
			return s.boolean(&v.Settled)
		case "p_unseen":
			return s.float(&v.PUnseen)
		case "bursts":
			return s.uint(&v.Bursts, math.MaxUint64)
		case "p_unseen_epoch":
			return s.float(&v.PUnseenEpoch)
		case "epochs":
			return s.uint(&v.Epochs, math.MaxUint64)
		case "missing":
			return s.float(&v.Missing)
		case "reason":
			return s.label(&v.Reason, 16*maxText)
		}
		return s.unknown(key)
	})
}

func (s *scanner) abis(p *Policy) error {
	p.ABIs = make(map[syscalls.ABI]*Calls)
	return s.object(func(key string) error {
		abi, err := syscalls.ParseABI(key)
		if err != nil {
			return s.unknown(key)
		}
		p.ABIs[abi] = &Calls{}
		if err := s.calls(abi, p.ABIs[abi]); err != nil {
			return err
		}
		return p.ABIs[abi].disputed(abi)
	})
}

func (s *scanner) calls(abi syscalls.ABI, c *Calls) error {
	return s.object(func(key string) (err error) {
		switch key {
		case "phases":
			return s.object(func(key string) error { return s.phase(abi, key, &c.Phases) })
		case "floor":
			return s.set(abi, &c.Floor)
		case "exec":
			return s.set(abi, &c.Exec)
		case "roles":
			return s.roles(abi, c)
		case "calls":
			c.Evidence, err = perCall(s, abi, (*scanner).evidence)
			return err
		case "denied":
			c.Denied, err = perCall(s, abi, (*scanner).denied)
			return err
		case "withheld":
			c.Withheld, err = perCall(s, abi, (*scanner).reason)
			return err
		case "quarantined":
			c.Quarantined, err = perCall(s, abi, (*scanner).reason)
			return err
		case "args":
			c.Args, err = perCall(s, abi, (*scanner).argRules)
			return err
		}
		return s.unknown(key)
	})
}

func (s *scanner) phase(abi syscalls.ABI, key string, to *map[Phase]syscalls.Set) error {
	phase, err := ParsePhase(key)
	if err != nil {
		return s.unknown(key)
	}
	var set syscalls.Set
	if err := s.set(abi, &set); err != nil {
		return err
	}
	if *to == nil {
		*to = make(map[Phase]syscalls.Set)
	}
	(*to)[phase] = set
	return nil
}

func (s *scanner) roles(abi syscalls.ABI, c *Calls) error {
	c.Roles = make(map[string]RoleCalls)
	return s.object(func(role string) error {
		if workload.Printable(role, maxText) != role {
			return errors.New("the role's name is too long or cannot be shown")
		}
		var r RoleCalls
		err := s.object(func(key string) error {
			if key == "birth" {
				return s.set(abi, &r.Birth)
			}
			return s.phase(abi, key, &r.Phases)
		})
		c.Roles[role] = r
		return err
	})
}

func (s *scanner) set(abi syscalls.ABI, to *syscalls.Set) error {
	return s.array(syscalls.MaxNr, func() error {
		var name string
		if err := s.text(&name, MaxSize); err != nil {
			return err
		}
		nr, ok := syscalls.Number(abi, name)
		if !ok {
			return unknownCall(abi, name)
		}
		to.Add(nr)
		return nil
	})
}

// perCall reads an object whose keys are names of calls.
func perCall[V any](s *scanner, abi syscalls.ABI, value func(*scanner) (V, error)) (map[uint32]V, error) {
	m := make(map[uint32]V)
	return m, s.object(func(name string) (err error) {
		nr, ok := syscalls.Number(abi, name)
		if !ok {
			return unknownCall(abi, name)
		}
		if _, twice := m[nr]; twice {
			return fmt.Errorf("%s is there by name and by number", syscalls.Name(abi, nr))
		}
		m[nr], err = value(s)
		return err
	})
}

func (s *scanner) evidence() (e Evidence, err error) {
	return e, s.object(func(key string) error {
		switch key {
		case "source":
			return s.label(&e.Source, maxText)
		case "count":
			return s.uint(&e.Count, math.MaxUint64)
		case "first_seen":
			return uintAs[time.Duration](s, &e.FirstSeen, math.MaxInt64)
		case "last_seen":
			return uintAs[time.Duration](s, &e.LastSeen, math.MaxInt64)
		case "phases":
			e.Phases = PhaseCounts{}
			return s.object(func(key string) error {
				phase, err := ParsePhase(key)
				if err != nil {
					return s.unknown(key)
				}
				var n uint64
				err = s.uint(&n, math.MaxUint64)
				e.Phases[phase] = n
				return err
			})
		case "lanes":
			return s.labels(&e.Lanes, maxCallers)
		case "roles":
			return s.labels(&e.Roles, maxCallers)
		case "rate":
			return s.float(&e.Rate)
		case "runs":
			return uintAs(s, &e.Runs, math.MaxInt32)
		case "reason":
			return s.label(&e.Reason, 16*maxText)
		}
		return s.unknown(key)
	})
}

func (s *scanner) reason() (why string, err error) { return why, s.label(&why, 16*maxText) }

func (s *scanner) denied() (d DeniedCall, err error) {
	err = s.object(func(key string) error {
		switch key {
		case "errno":
			return uintAs(s, &d.Errno, maxErrno)
		case "count":
			return s.uint(&d.Count, math.MaxUint64)
		}
		return s.unknown(key)
	})
	if err == nil && d.Errno == 0 {
		err = errors.New("errno 0 is no refusal")
	}
	return d, err
}

// maxErrno is the kernel's MAX_ERRNO.
const maxErrno = 4095

func (s *scanner) argRules() (rules []ArgRule, err error) {
	err = s.array(maxRules, func() error {
		rule, err := s.argRule()
		rules = append(rules, rule)
		return err
	})
	if err == nil && len(rules) == 0 {
		err = errors.New("no rules; leave the call out when any arguments are allowed")
	}
	return rules, err
}

func (s *scanner) argRule() (r ArgRule, err error) {
	r.Mask = math.MaxUint64
	err = s.object(func(key string) error {
		switch key {
		case "index":
			return uintAs(s, &r.Index, 5)
		case "mask":
			return s.hex(&r.Mask)
		case "value":
			return s.hex(&r.Value)
		}
		return s.unknown(key)
	})
	if err == nil && r.Value&^r.Mask != 0 {
		err = fmt.Errorf("value %#x has bits outside mask %#x, so the rule never matches", r.Value, r.Mask)
	}
	return r, err
}
