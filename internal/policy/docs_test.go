// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// docs/formats.md shows a file exactly as Whittle writes it, and explains every key.
func TestFormatsPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	_, rest, ok := strings.Cut(page, "<!-- example: policy -->\n```json\n")
	example, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("the page has no example of a policy")
	}
	p, err := Read(strings.NewReader(example))
	if err != nil {
		t.Fatalf("the example is not a policy: %v", err)
	}
	if diff := cmp.Diff(example, string(encode(t, p))); diff != "" {
		t.Errorf("the example is not what Whittle writes (-page +written):\n%s", diff)
	}
	explained := strings.Replace(page, example, "", 1)
	for key := range keysOf(reflect.TypeFor[wirePolicy](), map[string]bool{}) {
		if !strings.Contains(explained, "`"+key+"`") {
			t.Errorf("the page does not explain %q", key)
		}
	}
}

// keysOf the JSON form of a type and of what it holds.
func keysOf(typ reflect.Type, keys map[string]bool) map[string]bool {
	switch typ.Kind() {
	case reflect.Map, reflect.Slice, reflect.Pointer:
		return keysOf(typ.Elem(), keys)
	case reflect.Struct:
		for field := range typ.Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
				keys[name] = true
			}
			keysOf(field.Type, keys)
		}
	}
	return keys
}
