// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/policy"
)

func someCases(t testing.TB) []Case {
	p := New(learned(t, "nginx", "kill"), corpus())
	var cases []Case
	for _, name := range []string{"kill", "unshare", "umask", "setuid"} {
		q := asks(t, nginxMaster, policy.Reload, name, 77, 1<<63+1)
		q.Birth, q.Arguments = true, name == "umask"
		e := imports("/usr/sbin/nginx", name)
		e.Fleet = Fleet{3, 1}
		cases = append(cases, Case{Workload: "0123456789ab", Question: q, Evidence: e, Decision: p.Decide(q, e)})
	}
	return cases
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestCasesRoundTrip in each of the forms that they are found in, and judged again they get the same decisions.
func TestCasesRoundTrip(t *testing.T) {
	want := someCases(t)
	var lines, events strings.Builder
	for _, c := range want {
		lines.WriteString(encoded(t, c) + "\n")
		events.WriteString(`{"id": 7, "kind": "judged", "text": "x", "data": ` + encoded(t, c) + `}` + "\n" + `{"kind": "refused", "data": {"call": "x"}}` + "\n")
	}
	forms := map[string]string{
		"array": encoded(t, want), "lines": lines.String(), "events": events.String(),
		"array of events": "\n [" + strings.ReplaceAll(strings.TrimSpace(events.String()), "\n", ",") + "]\n",
	}
	p := New(learned(t, "nginx", "kill"), corpus())
	for name, form := range forms {
		got, err := ReadCases(strings.NewReader(form))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
		for _, c := range got {
			if diff := cmp.Diff(c.Decision, p.Decide(c.Question, c.Evidence)); diff != "" {
				t.Errorf("%s: judged again: -first +second:\n%s", name, diff)
			}
		}
	}
}

func TestReadCasesRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"no JSON", "hello", "invalid character"},
		{"cut", `[{"question": {"abi": "x86_64", "call": "kill", "phase": "run", "lane": "service"}}`, "unexpected EOF"},
		{"cut within", `{"question": {"abi"`, "unexpected EOF"},
		{"an unclosed array", `[`, "unexpected EOF"},
		{"something else", `{"pid": 1}`, "neither"},
		{"a number", `7`, "cannot unmarshal"},
		{"an event of ours without a case", `{"kind": "judged", "data": {}}`, "no question"},
		{"null", `{"question": null}`, "no question"},
		{"a call that does not exist", `{"question": {"abi": "x86_64", "call": "rm", "phase": "run", "lane": "service"}}`, `no call "rm"`},
		{"a phase that does not exist", `{"question": {"abi": "x86_64", "call": "kill", "phase": "never", "lane": "service"}}`, "never"},
		{"a lane that does not exist", `{"question": {"abi": "x86_64", "call": "kill", "phase": "run", "lane": "bus"}}`, "bus"},
		{"an argument that is none", `{"question": {"abi": "x86_64", "call": "kill", "args": ["x"], "phase": "run", "lane": "service"}}`, "argument 0"},
		{"a stance that does not exist", `{"question": {"abi": "x86_64", "call": "kill", "phase": "run", "lane": "service"}, "decision": {"votes": [{"stance": "loud"}]}}`, "loud"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, err := ReadCases(strings.NewReader(test.in)); err == nil || !strings.Contains(err.Error(), test.want) || got != nil {
				t.Errorf("got %v, %v; want %q", got, err, test.want)
			}
		})
	}
	if got, err := ReadCases(strings.NewReader(" \n")); err != nil || got != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

// endless repeats a text for ever.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c := copy(p[n:], e.text[e.at:])
		n, e.at = n+c, (e.at+c)%len(e.text)
	}
	return n, nil
}

func TestReadCasesIsBounded(t *testing.T) {
	one := encoded(t, Case{Question: asks(t, nginxMaster, policy.Run, "kill")})
	for name, in := range map[string]io.Reader{
		"cases":   &endless{text: one},
		"array":   io.MultiReader(strings.NewReader("["), &endless{text: one + ","}),
		"space":   &endless{text: "        "},
		"text":    io.MultiReader(strings.NewReader(`{"workload": "`), &endless{text: "x"}),
		"nesting": &endless{text: "["},
		"other":   &endless{text: `{"kind": "refused"}`},
	} {
		if _, err := readCases(in, 1<<20, 100); err == nil || name != "nesting" && !errors.Is(err, ErrTooMany) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReadCases: whatever is read can be judged, shown and written, and reads the same again.
func FuzzReadCases(f *testing.F) {
	for _, c := range someCases(f) {
		f.Add([]byte(encoded(f, c)))
	}
	f.Add([]byte(`[{"kind": "judged", "data": {"question": {"abi": "i386", "call": "#999", "lane": "exec", "phase": "boot"}}}]`))
	p := New(learned(f, "nginx"), corpus())
	f.Fuzz(func(t *testing.T, in []byte) {
		cases, err := ReadCases(bytes.NewReader(in))
		if err != nil {
			return
		}
		for _, c := range cases {
			for _, line := range append(c.Explain(), p.Decide(c.Question, c.Evidence).Lines()...) {
				if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("not printable: %q", line)
				}
			}
		}
		again, err := ReadCases(strings.NewReader(encoded(t, cases)))
		if len(cases) > 0 && (err != nil || cmp.Diff(cases, again) != "") {
			t.Errorf("written and read: %v\n%s", err, cmp.Diff(cases, again))
		}
	})
}

func TestWordsRoundTrip(t *testing.T) {
	for v := Refuse; v <= Learn; v++ {
		var got Verdict
		if b, err := v.MarshalText(); err != nil || got.UnmarshalText(b) != nil || got != v {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	for v := Unknown; v <= Anonymous; v++ {
		if got, err := ParseClass(v.String()); err != nil || got != v {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	for v := NotRead; v <= Contains; v++ {
		var got Carrier
		if b, err := v.MarshalText(); err != nil || got.UnmarshalText(b) != nil || got != v {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	if _, err := Verdict(9).MarshalText(); err == nil {
		t.Error("a verdict that does not exist is written")
	}
	if _, err := ParseClass("attic"); err == nil {
		t.Error("a class that does not exist is read")
	}
}
