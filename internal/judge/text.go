// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"slices"
	"strings"
)

// The words of the enums, by value. They are in the journal and in recorded cases, so they do not change.
var (
	verdictWords = []string{"refuse", "ask", "once", "learn"}
	classWords   = []string{"", "file", "vdso", "writable", "foreign", "memfd", "heap", "stack", "anonymous"}
	carrierWords = []string{"not read", "none", "imports", "contains"}
	stanceWords  = []string{"silent", "for", "against", "veto"}
)

func (v Verdict) String() string { return word(verdictWords, v) }
func (c Class) String() string   { return word(classWords, c) }
func (c Carrier) String() string { return word(carrierWords, c) }
func (s Stance) String() string  { return word(stanceWords, s) }

// MarshalText is String.
func (v Verdict) MarshalText() ([]byte, error) { return marshal("verdict", verdictWords, v) }

// MarshalText is String; Unknown is "", as in observe.Seen.
func (c Class) MarshalText() ([]byte, error) { return marshal("kind of memory", classWords, c) }

// MarshalText is String.
func (c Carrier) MarshalText() ([]byte, error) { return marshal("carrier", carrierWords, c) }

// MarshalText is String.
func (s Stance) MarshalText() ([]byte, error) { return marshal("stance", stanceWords, s) }

// UnmarshalText is the inverse of MarshalText.
func (v *Verdict) UnmarshalText(text []byte) (err error) {
	*v, err = parse[Verdict]("verdict", verdictWords, text)
	return err
}

// UnmarshalText is the inverse of MarshalText.
func (c *Class) UnmarshalText(text []byte) (err error) {
	*c, err = parse[Class]("kind of memory", classWords, text)
	return err
}

// UnmarshalText is the inverse of MarshalText.
func (c *Carrier) UnmarshalText(text []byte) (err error) {
	*c, err = parse[Carrier]("carrier", carrierWords, text)
	return err
}

// UnmarshalText is the inverse of MarshalText.
func (s *Stance) UnmarshalText(text []byte) (err error) {
	*s, err = parse[Stance]("stance", stanceWords, text)
	return err
}

// ParseClass is the inverse of Class.String; "" is Unknown.
func ParseClass(s string) (Class, error) {
	return parse[Class]("kind of memory", classWords, []byte(s))
}

func word[T ~uint8](words []string, v T) string {
	if int(v) >= len(words) {
		return fmt.Sprintf("#%d", uint8(v))
	}
	return words[v]
}

func marshal[T ~uint8](what string, words []string, v T) ([]byte, error) {
	if int(v) >= len(words) {
		return nil, fmt.Errorf("no %s has the number %d", what, uint8(v))
	}
	return []byte(words[v]), nil
}

func parse[T ~uint8](what string, words []string, text []byte) (T, error) {
	i := slices.Index(words, string(text))
	if i < 0 {
		return 0, fmt.Errorf("reading a %s: %.40q is none of %s", what, text, strings.Join(words, ", "))
	}
	return T(i), nil
}
