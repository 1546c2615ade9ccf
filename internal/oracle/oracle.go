// SPDX-License-Identifier: Apache-2.0

// Package oracle says what a hardened twin of a service is: how strong each kind is, what it changes in production's
// command and environment, and what its reports mean. It starts nothing and reads no file by itself; when an oracle takes
// production's place is package loop's.
package oracle

import "time"

// Kind of hardening.
type Kind string

const (
	Sanitizer   Kind = "sanitizer"    // another image, or command, built with -fsanitize=address or the like
	Valgrind    Kind = "valgrind"     // the same image under memcheck
	Hardened    Kind = "hardened"     // the same image with a checking allocator
	AuditPython Kind = "audit-python" // the same image with an audit hook in the interpreter
	AuditNode   Kind = "audit-node"   // the same image with a module that is loaded first
	AuditPHP    Kind = "audit-php"    // the same image with a script that is run before every other
)

// Kinds in the order of what they are good for.
var Kinds = [...]Kind{Sanitizer, Valgrind, AuditPython, AuditNode, AuditPHP, Hardened}

// Strength is how much it means that an oracle of the kind did not abort. The zero Strength vouches for nothing.
type Strength int

const (
	None Strength = iota
	Weak
	Medium
	Strong
)

func (s Strength) String() string {
	return [...]string{"none", "weak", "medium", "strong"}[min(max(s, None), Strong)]
}

func (s Strength) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what it does not know as None.
func (s *Strength) UnmarshalText(text []byte) error {
	*s = None
	for _, known := range []Strength{Weak, Medium, Strong} {
		if string(text) == known.String() {
			*s = known
		}
	}
	return nil
}

// Strength of the kind; None for one that there is not.
func (k Kind) Strength() Strength {
	switch k {
	case Sanitizer:
		return Strong
	case Valgrind, AuditPython, AuditNode, AuditPHP:
		return Medium
	case Hardened:
		return Weak
	}
	return None
}

// Spec is the oracle of a workload, as a person set it.
type Spec struct {
	Kind Kind `json:"kind"`
	// Image, Entrypoint and Command replace production's; empty ones leave them as they are.
	Image      string            `json:"image,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Command    []string          `json:"command,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	Preload    string            `json:"preload,omitempty"` // hardened: the path of an allocator in the image, instead of glibc's
	Quiet      time.Duration     `json:"quiet,omitempty"`   // without a new call, after which production comes back; 0 is the default
	Drain      time.Duration     `json:"drain,omitempty"`   // that production has to finish what it does; 0 is its stop time-out
	By         string            `json:"by,omitempty"`
	Why        string            `json:"why,omitempty"`
	Since      time.Time         `json:"since"`
}

// Production is what the twin is made like.
type Production struct {
	Image string
	// Argv is the whole argument vector: entrypoint and command.
	Argv []string
	Env  map[string]string
}

// Where the twin finds what is mounted into it.
const (
	ReportDir = "/run/whittle-oracle" // writable for every user of the container: reports are written with the service's rights
	HookDir   = "/run/whittle-hooks"  // read-only
)

// AbortCode is the exit code of a process that a sanitizer, valgrind or an audit hook ended.
const AbortCode = 66

// Mount besides those that production has. Source is below the directory that was given to Changes.
type Mount struct {
	Source, Destination string
	ReadOnly            bool
}

// File is to be written, below the same directory, before the twin starts.
type File struct {
	Name    string // relative, slash-separated
	Content []byte
}

// Start is how the twin differs from production. What is empty stays as it is.
type Start struct {
	Image      string
	Entrypoint *[]string
	Command    []string
	Env        map[string]string
	Mounts     []Mount
	Files      []File
}

// Aborts reports whether the exit code of a container (128 + n for a signal) means that the hardening ended it. A
// report may be there without it: a worker's end is not the container's.
// A fatal signal counts for every kind: the C library ends with SIGABRT what it finds corrupted, and an attack that
// crashed is one.
func (k Kind) Aborts(code int) bool {
	switch code {
	case AbortCode:
		return k != Hardened
	case 128 + 4, 128 + 6, 128 + 7, 128 + 8, 128 + 11: // SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV
		return true
	}
	return false
}

// audits reports whether the kind's hardening is a hook in an interpreter.
func (k Kind) audits() bool { return k == AuditPython || k == AuditNode || k == AuditPHP }

// Logs reports whether the kind's reports are in what the container logged, and not in files: glibc writes to stderr.
func (k Kind) Logs() bool { return k == Hardened }
