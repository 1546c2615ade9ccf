// SPDX-License-Identifier: Apache-2.0

// Package jsonedit changes single values in a JSON text and leaves every other byte as it is, so that what this program does not
// know survives: fields of a newer specification, big numbers, the order and the layout that a person chose. It does
// not understand what it edits.
package jsonedit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrAmbiguous is wrapped where an object has a key twice, or twice but for the case of its letters: which one counts is up to
// the reader (Go's takes either), so neither is touched.
var ErrAmbiguous = errors.New("the key is there more than once")

// member of an object: where its key begins and its value begins and ends.
type member struct {
	key             string
	from, value, to int
}

// members of an object, which is all of text but for white space around it.
func members(text []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	opening, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if opening != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var out []member
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := token.(string)
		if !ok {
			return nil, errors.New("a key that is no string") // the decoder sees to it
		}
		m := member{key: key, from: keyStart(text, int(dec.InputOffset()))}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		m.to = int(dec.InputOffset())
		m.value = m.to - len(value)
		out = append(out, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return out, nil
}

// keyStart is the opening quote of a key that ends at end.
func keyStart(text []byte, end int) int {
	for i := end - 2; i >= 0; i-- {
		if text[i] != '"' {
			continue
		}
		slashes := 0
		for i-slashes-1 >= 0 && text[i-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
	return 0
}

// find a key; -1 when it is not there.
func find(in []member, key string) (int, error) {
	at := -1
	for i, m := range in {
		if !strings.EqualFold(m.key, key) {
			continue
		}
		if at >= 0 || m.key != key {
			return -1, fmt.Errorf("%q: %w", m.key, ErrAmbiguous)
		}
		at = i
	}
	return at, nil
}

func isNull(value []byte) bool { return string(bytes.TrimSpace(value)) == "null" }

// Get the value at a path of keys; nil when something on the way is not there or null.
func Get(text []byte, path ...string) (json.RawMessage, error) {
	for _, key := range path {
		in, err := members(text)
		if err != nil {
			return nil, fmt.Errorf("look for %q: %w", key, err)
		}
		at, err := find(in, key)
		if err != nil {
			return nil, fmt.Errorf("look for %q: %w", key, err)
		}
		if at < 0 || isNull(text[in[at].value:in[at].to]) {
			return nil, nil
		}
		text = text[in[at].value:in[at].to]
	}
	return json.RawMessage(text), nil
}

// Set the value at a path of keys, and make the objects on the way that are not there or null. The path has one key at least.
func Set(text []byte, value json.RawMessage, path ...string) ([]byte, error) {
	key := path[0]
	in, err := members(text)
	if err != nil {
		return nil, fmt.Errorf("set %q: %w", key, err)
	}
	at, err := find(in, key)
	if err != nil {
		return nil, fmt.Errorf("set %q: %w", key, err)
	}
	old := []byte("{}")
	if at >= 0 && !isNull(text[in[at].value:in[at].to]) {
		old = text[in[at].value:in[at].to]
	}
	if len(path) > 1 {
		if value, err = Set(old, value, path[1:]...); err != nil {
			return nil, fmt.Errorf("set %q: %w", key, err)
		}
	}
	if at >= 0 {
		return splice(text, in[at].value, in[at].to, value), nil
	}
	return insert(text, in, key, value)
}

// insert a key behind the last one, laid out as the first one is.
func insert(text []byte, in []member, key string, value json.RawMessage) ([]byte, error) {
	name, err := json.Marshal(key)
	if err != nil {
		return nil, fmt.Errorf("set %q: %w", key, err)
	}
	colon := ":"
	brace := bytes.IndexByte(text, '{') + 1
	if len(in) == 0 {
		return splice(text, brace, brace, append(append(name, colon...), value...)), nil
	}
	layout := string(text[brace:in[0].from])
	if layout != "" {
		colon = ": "
	}
	end := in[len(in)-1].to
	return splice(text, end, end, []byte(","+layout+string(name)+colon+string(value))), nil
}

// Remove the value at a path of keys, if it is there, with its key. Objects that become empty stay.
func Remove(text []byte, path ...string) ([]byte, error) {
	key := path[0]
	in, err := members(text)
	if err != nil {
		return nil, fmt.Errorf("remove %q: %w", key, err)
	}
	at, err := find(in, key)
	if err != nil {
		return nil, fmt.Errorf("remove %q: %w", key, err)
	}
	if at < 0 || isNull(text[in[at].value:in[at].to]) && len(path) > 1 {
		return text, nil
	}
	if len(path) > 1 {
		rest, err := Remove(text[in[at].value:in[at].to], path[1:]...)
		if err != nil {
			return nil, fmt.Errorf("remove %q: %w", key, err)
		}
		return splice(text, in[at].value, in[at].to, rest), nil
	}
	switch {
	case at > 0: // with the comma before it
		return splice(text, in[at-1].to, in[at].to, nil), nil
	case len(in) > 1:
		return splice(text, in[0].from, in[1].from, nil), nil
	}
	return splice(text, in[0].from, in[0].to, nil), nil
}

func splice(text []byte, from, to int, value []byte) []byte {
	out := make([]byte, 0, len(text)-(to-from)+len(value))
	out = append(out, text[:from]...)
	out = append(out, value...)
	return append(out, text[to:]...)
}
