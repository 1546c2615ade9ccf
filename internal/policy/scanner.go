// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// scanner reads JSON token by token, so that a large or odd file costs no more than its largest token. It is stricter than
// encoding/json: keys are compared exactly and may not repeat, since a second "x86_64" could say something else.
type scanner struct {
	dec  *json.Decoder
	path []string
}

func newScanner(r io.Reader) *scanner {
	dec := json.NewDecoder(r)
	dec.UseNumber()
	return &scanner{dec: dec}
}

// maxKeys of one object. Nothing in a policy has more.
const maxKeys = max(syscalls.MaxNr, maxRoles+2)

func (s *scanner) fail(err error) error {
	var syntax *SyntaxError
	if errors.As(err, &syntax) || errors.Is(err, ErrTooLarge) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends in the middle")
	}
	e := &SyntaxError{At: strings.Join(s.path, "."), Offset: s.dec.InputOffset(), Err: err}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		e.hint = hinted.Hint()
	}
	return e
}

func (s *scanner) failf(format string, args ...any) error { return s.fail(fmt.Errorf(format, args...)) }

func (s *scanner) unknown(key string) error {
	return s.failf("unknown key %q", workload.Printable(key, 40))
}

func (s *scanner) token() (json.Token, error) {
	t, err := s.dec.Token()
	if err != nil {
		return nil, s.fail(err)
	}
	return t, nil
}

func (s *scanner) open(delim json.Delim, what string) error {
	t, err := s.token()
	if err == nil && t != delim {
		err = s.failf("want %s", what)
	}
	return err
}

// object calls each with every key; each must read the value.
func (s *scanner) object(each func(key string) error) error {
	if err := s.open('{', "an object"); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for s.dec.More() {
		t, err := s.token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		switch {
		case !ok:
			return s.failf("want a key")
		case seen[key]:
			return s.failf("key %q repeats", workload.Printable(key, 40))
		case len(seen) == maxKeys:
			return s.failf("more than %d keys", maxKeys)
		}
		seen[key] = true
		s.path = append(s.path, workload.Printable(key, 40))
		if err := each(key); err != nil {
			return s.fail(err)
		}
		s.path = s.path[:len(s.path)-1]
	}
	_, err := s.token()
	return err
}

// array calls each for every element, at most limit times; each must read it.
func (s *scanner) array(limit int, each func() error) error {
	if err := s.open('[', "a list"); err != nil {
		return err
	}
	for n := 0; s.dec.More(); n++ {
		if n == limit {
			return s.failf("more than %d entries", limit)
		}
		if err := each(); err != nil {
			return s.fail(err)
		}
	}
	_, err := s.token()
	return err
}

// end checks that nothing follows.
func (s *scanner) end() error {
	_, err := s.dec.Token()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, ErrTooLarge):
		return err
	}
	return s.failf("something follows the policy")
}

// text is any string; whoever shows it makes it printable.
func (s *scanner) text(to *string, limit int) error {
	t, err := s.token()
	if err != nil {
		return err
	}
	str, ok := t.(string)
	switch {
	case !ok:
		return s.failf("want a string")
	case len(str) > limit:
		return s.failf("string is longer than %d bytes", limit)
	}
	*to = str
	return nil
}

// label is a printable string.
func (s *scanner) label(to *string, limit int) error {
	if err := s.text(to, 4*limit); err != nil {
		return err
	}
	if workload.Printable(*to, limit) != *to {
		return s.failf("%q is too long or has characters that cannot be shown", workload.Printable(*to, 40))
	}
	return nil
}

func (s *scanner) labels(to *[]string, limit int) error {
	return s.array(limit, func() error {
		var l string
		err := s.label(&l, maxText)
		*to = append(*to, l)
		return err
	})
}

func (s *scanner) boolean(to *bool) error {
	t, err := s.token()
	if err != nil {
		return err
	}
	b, ok := t.(bool)
	if !ok {
		return s.failf("want true or false")
	}
	*to = b
	return nil
}

func (s *scanner) number() (string, error) {
	t, err := s.token()
	if err != nil {
		return "", err
	}
	n, ok := t.(json.Number)
	if !ok {
		return "", s.failf("want a number")
	}
	return n.String(), nil
}

// uint is a whole number from 0 to limit.
func (s *scanner) uint(to *uint64, limit uint64) error {
	text, err := s.number()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > limit {
		return s.failf("%s is not a whole number from 0 to %d", workload.Printable(text, 40), limit)
	}
	*to = n
	return nil
}

// uintAs reads a number from 0 to limit, which must fit in T.
func uintAs[T ~int | ~int32 | ~int64 | ~uint8](s *scanner, to *T, limit uint64) error {
	var n uint64
	err := s.uint(&n, limit)
	*to = T(n)
	return err
}

// float is a number that is not negative.
func (s *scanner) float(to *float64) error {
	text, err := s.number()
	if err != nil {
		return err
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f < 0 || math.IsInf(f, 0) {
		return s.failf("%s is not a number from 0", workload.Printable(text, 40))
	}
	*to = f
	return nil
}

func (s *scanner) hex(to *uint64) (err error) {
	var text string
	if err := s.text(&text, 40); err != nil {
		return err
	}
	*to, err = parseHex(text)
	return err
}

// limited returns ErrTooLarge past n bytes instead of ending early as io.LimitReader does.
type limited struct {
	r io.Reader
	n int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n < 0 {
		return 0, ErrTooLarge
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.n+1)])
	if l.n -= int64(n); l.n < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

// looksLikeOCI tells an engine's seccomp profile, the most likely thing to be given by mistake.
func looksLikeOCI(key string) bool {
	return slices.Contains([]string{"defaultAction", "defaultErrnoRet", "archMap", "architectures", "syscalls"}, key)
}
