// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"sigs.k8s.io/yaml"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Bounds on a profile from outside. The engines' own have about 20 KB, 30 entries and 370 names.
const (
	MaxProfileSize = 8 << 20
	maxYAMLSize    = 1 << 20 // a YAML reader takes some hundred times the memory of its input
	maxEntries     = 4000    // one name an entry is usual
	maxNames       = 2000
	maxEntryArgs   = 6
	maxArchs       = 64
	maxObjects     = 50_000 // JSON objects: an empty one has two bytes, and takes a hundred when it is read
)

// ProfileError is a profile that cannot be used. Where is the place in it, Help what to do about it; both may be empty.
type ProfileError struct {
	Where string
	What  string
	Help  string
}

// Hint is Help, see package hint.
func (e *ProfileError) Hint() string { return e.Help }

func (e *ProfileError) Error() string {
	if e.Where == "" {
		return e.What
	}
	return e.Where + ": " + e.What
}

func bad(where, help, format string, args ...any) error {
	return &ProfileError{Where: where, What: fmt.Sprintf(format, args...), Help: help}
}

// document is any of the JSON forms of a profile: the runtime specification's, Docker's (archMap, includes, excludes, name)
// and that of containers-common (errno by name).
type document struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet"`
	DefaultErrno     string                   `json:"defaultErrno"` // the name of DefaultErrnoRet
	Architectures    []specs.Arch             `json:"architectures"`
	ArchMap          []moby.Architecture      `json:"archMap"`
	Flags            []specs.LinuxSeccompFlag `json:"flags"`
	ListenerPath     string                   `json:"listenerPath"`
	ListenerMetadata string                   `json:"listenerMetadata"`
	BaseProfileName  string                   `json:"baseProfileName"` // the operator's
	Syscalls         []*documentEntry         `json:"syscalls"`
}

type documentEntry struct {
	Name     string                   `json:"name"`
	Names    []string                 `json:"names"`
	Action   specs.LinuxSeccompAction `json:"action"`
	ErrnoRet *uint                    `json:"errnoRet"`
	Errno    string                   `json:"errno"` // the name of ErrnoRet
	Args     []specs.LinuxSeccompArg  `json:"args"`
	Comment  string                   `json:"comment"`
	Includes *moby.Filter             `json:"includes"`
	Excludes *moby.Filter             `json:"excludes"`
}

// crd is the security-profiles-operator's SeccompProfile.
type crd struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   json.RawMessage `json:"metadata"`
	Spec       *document       `json:"spec"`
	Status     json.RawMessage `json:"status"`
}

// Parse reads a profile in any of the forms that are in use (OCI JSON, Docker's JSON, the operator's SeccompProfile as YAML
// or JSON) and resolves it for an unprivileged container on a host with this native ABI. It errs with a *ProfileError. A
// misspelt key is an error: ignoring "arg" for "args" would widen the profile.
func Parse(text []byte, native syscalls.ABI) (*specs.LinuxSeccomp, error) {
	if len(text) > MaxProfileSize {
		return nil, bad("", "a profile has some ten kilobytes; is this the right file?",
			"the profile has %d bytes, the limit is %d", len(text), MaxProfileSize)
	}
	start := bytes.TrimSpace(text)
	if len(start) == 0 {
		return nil, bad("", "", "the profile is empty")
	}
	if start[0] != '{' {
		if len(text) > maxYAMLSize {
			return nil, bad("", "convert it to JSON", "the profile has %d bytes of YAML, the limit is %d", len(text), maxYAMLSize)
		}
		converted, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			return nil, bad("", "", "not a profile in JSON or YAML: %s", printable(strings.TrimPrefix(err.Error(), "yaml: ")))
		}
		text = converted
	}
	if n := bytes.Count(text, []byte("{")); n > maxObjects {
		return nil, bad("", "group the names by action", "the profile has %d objects, the limit is %d", n, maxObjects)
	}
	var head struct {
		Kind string `json:"kind"`
	}
	var doc *document
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, jsonError(text, err)
	}
	if head.Kind != "" {
		var c crd
		if err := decode(text, &c); err != nil {
			return nil, err
		}
		if c.Kind != "SeccompProfile" || !strings.HasPrefix(c.APIVersion, operatorGroup+"/") || c.Spec == nil {
			return nil, bad("kind", "", "got %s %s, want a SeccompProfile of %s", printable(c.APIVersion), printable(c.Kind), operatorGroup)
		}
		doc = c.Spec
	} else if err := decode(text, &doc); err != nil {
		return nil, err
	}
	if doc == nil {
		return nil, bad("", "", "the profile is null")
	}
	return doc.resolve(native)
}

func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return jsonError(text, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad(fmt.Sprintf("line %d", line(text, d.InputOffset())), "", "something follows the profile")
	}
	return nil
}

// within a field; nothing where the whole document is meant.
func within(field string) string {
	if field == "" {
		return ""
	}
	return printable(field) + ": "
}

func jsonError(text []byte, err error) error {
	var (
		syntax *json.SyntaxError
		kind   *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &syntax):
		return bad(fmt.Sprintf("line %d", line(text, syntax.Offset)), "", "not JSON: %s", printable(syntax.Error()))
	case errors.As(err, &kind):
		return bad(fmt.Sprintf("line %d", line(text, kind.Offset)), "", "%sgot a JSON %s", within(kind.Field), printable(kind.Value))
	}
	message := strings.TrimPrefix(err.Error(), "json: ")
	if key, ok := strings.CutPrefix(message, "unknown field "); ok {
		return bad("", "the keys are defaultAction, defaultErrnoRet, architectures, syscalls, names, action, errnoRet, args, "+
			"index, value, valueTwo, op", "unknown key %s", printable(key))
	}
	return bad("", "", "%s", printable(message))
}

// line of a byte offset, from 1.
func line(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(max(offset, 0), int64(len(text)))], []byte("\n"))
}

// printable makes words of a profile safe to show.
func printable(s string) string {
	const limit = 120
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), limit+1)])
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}
