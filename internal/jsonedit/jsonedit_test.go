// SPDX-License-Identifier: Apache-2.0

package jsonedit

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

func TestSet(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		path       []string
		want       string
	}{
		{"replaces", `{"a": 1, "b":{"c" :2 }, "d": 1e400}`, []string{"b", "c"}, `{"a": 1, "b":{"c" :NEW }, "d": 1e400}`},
		{"adds", `{"a":1}`, []string{"b"}, `{"a":1,"b":NEW}`},
		{"adds to nothing", `{}`, []string{"b", "c"}, `{"b":{"c":NEW}}`},
		{"null is nothing", `{"b":null,"z":0}`, []string{"b", "c"}, `{"b":{"c":NEW},"z":0}`},
		{"as it is laid out", "{\n  \"a\": 1\n}\n", []string{"b"}, "{\n  \"a\": 1,\n  \"b\": NEW\n}\n"},
		{"escapes in keys", `{"a\"\\":1,"b":2}`, []string{"b"}, `{"a\"\\":1,"b":NEW}`},
		{"an escaped key", `{"\u0062":2}`, []string{"b"}, `{"\u0062":NEW}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Set([]byte(tt.text), json.RawMessage("NEW"), tt.path...)
			if err != nil || string(got) != tt.want {
				t.Errorf("Set(%s) = %s, %v; want %s", tt.text, got, err, tt.want)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	for _, text := range []string{``, `[]`, `{`, `{"a":1}x`, `{"a" 1}`, `{"b":1,"b":2}`, `{"B":1}`, `{"b":[]}`, `{"b":{"c":1,"C":2}}`} {
		if got, err := Set([]byte(text), json.RawMessage("1"), "b", "c"); err == nil {
			t.Errorf("Set(%s) = %s", text, got)
		}
	}
	if _, err := Get([]byte(`{"b":1,"B":2}`), "b"); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("Get of an ambiguous key: %v", err)
	}
}

func TestRemove(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"the only one", `{"b":{"c":1}}`, `{"b":{}}`},
		{"the first", `{"b":{"c":1, "d":2}}`, `{"b":{"d":2}}`},
		{"the last", `{"b":{"a":1, "c":2}}`, `{"b":{"a":1}}`},
		{"nothing there", `{"a":1}`, `{"a":1}`},
		{"null", `{"b":null}`, `{"b":null}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Remove([]byte(tt.text), "b", "c")
			if err != nil || string(got) != tt.want {
				t.Errorf("Remove(%s) = %s, %v; want %s", tt.text, got, err, tt.want)
			}
		})
	}
}

// Whatever is set is there afterwards, everything else stays, and taking it away again leaves what was there.
func FuzzSet(f *testing.F) {
	f.Add(`{"linux":{"seccomp":{"a":[1,2]}},"x":"y"}`)
	f.Add("{\n\t\"linux\" : null }")
	f.Add(`{"a\\\"":"b","linux":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Set([]byte(text), json.RawMessage(`{"new":true}`), "linux", "seccomp")
		if err != nil {
			return
		}
		var before, after map[string]any
		if err := json.Unmarshal([]byte(text), &before); err != nil {
			return // numbers that float64 cannot hold
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("Set(%q) = %q: %v", text, got, err)
		}
		linux, _ := before["linux"].(map[string]any)
		if linux == nil {
			linux = make(map[string]any)
		}
		linux["seccomp"] = map[string]any{"new": true}
		before["linux"] = linux
		if !reflect.DeepEqual(before, after) {
			t.Errorf("Set(%q) = %q", text, got)
		}
		if gone, err := Remove(got, "linux", "seccomp"); err != nil || !json.Valid(gone) {
			t.Errorf("Remove(%q) = %q, %v", got, gone, err)
		} else if value, err := Get(gone, "linux", "seccomp"); err != nil || value != nil {
			t.Errorf("after it was removed: %s, %v", value, err)
		}
	})
}
