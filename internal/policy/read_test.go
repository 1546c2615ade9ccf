// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

var update = flag.Bool("update", false, "write testdata/golden.json anew")

func encode(t testing.TB, p Policy) []byte {
	t.Helper()
	data, err := Encode(p)
	if err != nil {
		t.Fatalf("Encode: %v", err)
	}
	return data
}

func TestGolden(t *testing.T) {
	got := encode(t, example(t))
	const file = "testdata/golden.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the JSON form changed (-want +got):\n%s", diff)
	}
	p, err := Read(bytes.NewReader(want))
	if err != nil {
		t.Fatalf("Read(golden): %v", err)
	}
	if diff := cmp.Diff(Normal(example(t)), p); diff != "" {
		t.Errorf("Read(golden) (-want +got):\n%s", diff)
	}
}

func TestJSONInsideOtherJSON(t *testing.T) {
	data, err := json.Marshal(map[string]Policy{"p": example(t)})
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]Policy
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Normal(example(t)), back["p"]); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
}

// withABI is a policy whose x86_64 is the given JSON.
func withABI(body string) string {
	return `{"version": 1, "workload": {"image": "a", "command": []}, "abis": {"x86_64": ` + body + `}}`
}

func TestReadErrors(t *testing.T) {
	for _, tc := range []struct{ name, in, want, hint string }{
		{"empty", ``, "the file ends in the middle", ""},
		{"not JSON", `whittle`, "invalid character", ""},
		{"cut", withABI(`{"floor": ["read"`)[:90], "the file ends in the middle", ""},
		{"null", `null`, "want an object", ""},
		{"list", `[]`, "want an object", ""},
		{"no version", `{"workload": {}, "abis": {}}`, `"version" is missing`, ""},
		{"no ABIs", `{"version": 1, "workload": {}}`, `"abis" is missing`, ""},
		{"newer", `{"version": 2, "future": 1}`, "format version 2, this whittle reads version 1", "newer whittle"},
		{"older", `{"version": 0}`, "format version 0", "record the workload again"},
		{"negative version", `{"version": -1}`, "not a whole number", ""},
		{"OCI profile", `{"defaultAction": "SCMP_ACT_ERRNO"}`, `unknown key "defaultAction"`, "OCI seccomp profile"},
		{"unknown key", `{"version": 1, "colour": 1}`, `unknown key "colour"`, ""},
		{"key in other case", `{"Version": 1}`, `unknown key "Version"`, ""},
		{"unknown ABI", `{"version": 1, "workload": {}, "abis": {"vax": {}}}`, `unknown key "vax"`, ""},
		{"ABI twice", `{"version": 1, "workload": {}, "abis": {"i386": {}, "i386": {}}}`, `key "i386" repeats`, ""},
		{"unknown phase", withABI(`{"phases": {"walk": []}}`), `abis.x86_64.phases.walk: unknown key`, ""},
		{"unknown call", withABI(`{"phases": {"run": ["opnat"]}}`), `abis.x86_64.phases.run: unknown system call "opnat" of x86_64`, `did you mean "openat"?`},
		{"call of another ABI", withABI(`{"floor": ["socketcall"]}`), `unknown system call "socketcall" of x86_64`, "is a call of i386"},
		{"number too large", withABI(`{"floor": ["#1024"]}`), `unknown system call "#1024"`, `"#600"`},
		{"evidence of unknown call", withABI(`{"calls": {"xyzzy": {}}}`), `unknown system call "xyzzy"`, ""},
		{"escape sequences", withABI(`{"floor": ["\u001b[31mred"]}`), `unknown system call "?[31mred"`, ""},
		{"role with control characters", withABI(`{"roles": {"/bin/\u0007:0": {}}}`), "cannot be shown", ""},
		{"reason with control characters", withABI(`{"calls": {"read": {"reason": "\r"}}}`), "cannot be shown", ""},
		{"name and number", withABI(`{"denied": {"read": {"errno": 1}, "#0": {"errno": 1}}}`), "by name and by number", ""},
		{"errno 0", withABI(`{"denied": {"read": {"errno": 0}}}`), "errno 0 is no refusal", ""},
		{"errno too large", withABI(`{"denied": {"read": {"errno": 4096}}}`), "from 0 to 4095", ""},
		{"negative time", withABI(`{"calls": {"read": {"first_seen": -1}}}`), "not a whole number", ""},
		{"huge number", withABI(`{"calls": {"read": {"rate": 1e999}}}`), "not a number from 0", ""},
		{"no rules", withABI(`{"args": {"read": []}}`), "leave the call out", ""},
		{"argument 6", withABI(`{"args": {"read": [{"index": 6, "value": "0x1"}]}}`), "from 0 to 5", ""},
		{"number for hex", withABI(`{"args": {"read": [{"index": 0, "value": 1}]}}`), "want a string", ""},
		{"value outside mask", withABI(`{"args": {"read": [{"index": 0, "mask": "0x1", "value": "0x2"}]}}`), "never matches", ""},
		{"contradiction", `{"version": 1, "workload": {}, "complete": true, "partial": ["lost"], "abis": {}}`, `"complete" is true, but`, ""},
		{"something follows", withABI(`{}`) + `{}`, "something follows", ""},
		{"string for list", withABI(`{"floor": "read"}`), "want a list", ""},
		{"deep", strings.Repeat(`{"abis":`, 100000), `unknown key "abis"`, ""},
		{"deep lists", `{"version": 1, "partial": ` + strings.Repeat("[", 1<<20), "want a string", ""},
		{"repeated names", withABI(`{"floor": [` + strings.Repeat(`"read",`, 5000) + `"read"]}`), "more than 1024 entries", ""},
		{"many roles", withABI(`{"roles": {` + manyKeys(5000) + `}}`), "more than 1024 keys", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Read(strings.NewReader(tc.in))
			if err == nil {
				t.Fatalf("Read accepted %.200q as %+v, want error %q", tc.in, p, tc.want)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Read(%.200q) = %v, want %q", tc.in, err, tc.want)
			}
			var hinted interface{ Hint() string }
			hint := ""
			if errors.As(err, &hinted) {
				hint = hinted.Hint()
			}
			if !strings.Contains(hint, tc.hint) {
				t.Errorf("hint of %v = %q, want %q", err, hint, tc.hint)
			}
			if strings.ContainsAny(err.Error()+hint, "\x1b\r\a") {
				t.Errorf("error is not printable: %q", err)
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"r%d:0": {},`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

func TestTypedErrors(t *testing.T) {
	_, err := Read(strings.NewReader(`{"version": 7}`))
	if v := (*VersionError)(nil); !errors.As(err, &v) || v.Got != 7 {
		t.Errorf("version 7: %v, want *VersionError", err)
	}
	_, err = Read(strings.NewReader(withABI(`{"exec": ["frobnicate"]}`)))
	if u := (*UnknownCallError)(nil); !errors.As(err, &u) || u.Name != "frobnicate" || u.ABI != x86 {
		t.Errorf("unknown call: %v, want *UnknownCallError", err)
	}
	broken := errors.New("broken")
	if _, err := Read(io.MultiReader(strings.NewReader(`{"version"`), errReader{broken})); !errors.Is(err, broken) {
		t.Errorf("reader's error: %v, want it wrapped", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// A file with ten million names is refused after 8 MiB at most, and what was read is not kept.
func TestReadIsBounded(t *testing.T) {
	names := func(prefix, repeat string) io.Reader {
		return io.MultiReader(strings.NewReader(prefix), &repeated{text: repeat})
	}
	for _, tc := range []struct {
		name string
		in   io.Reader
	}{
		{"names in a list", names(withABI("")[:len(withABI(""))-2]+`{"floor": [`, `"read",`)},
		{"white space", names(`{`, " ")},
		{"one string", names(`{"version": 1, "workload": {"image": "`, "a")},
		{"one number", names(`{"version": `, "1")},
		{"arguments", names(`{"version": 1, "workload": {"command": [`, `"a",`)},
		{"reasons", names(`{"version": 1, "partial": [`, `"a",`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			counted := &countingReader{r: tc.in}
			_, err := Read(counted)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Fatal("an endless file was accepted")
			}
			if counted.n > MaxSize+1 {
				t.Errorf("read %d bytes, want at most %d", counted.n, MaxSize+1)
			}
			// Everything ever allocated, so buffers that doubled on the way count twice.
			if got := after.TotalAlloc - before.TotalAlloc; got > 160<<20 {
				t.Errorf("allocated %d MiB in all for a file of at most 8", got>>20)
			}
		})
	}
	if _, err := Read(names(`{`, " ")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("endless white space: %v, want ErrTooLarge", err)
	}
}

type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.text[r.at%len(r.text)]
		r.at++
	}
	return len(p), nil
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// What a container can blow up is cut so that the policy can always be written and read back.
func TestEncodeAlwaysFits(t *testing.T) {
	p := Policy{ABIs: map[syscalls.ABI]*Calls{}}
	for _, abi := range syscalls.ABIs {
		all := syscalls.Known(abi)
		phases := map[Phase]syscalls.Set{Boot: all, Run: all, Reload: all, Stop: all}
		c := &Calls{Phases: phases, Floor: all, Exec: all, Roles: map[string]RoleCalls{}, Evidence: map[uint32]Evidence{}}
		var roles []string
		for i := range 600 {
			role := fmt.Sprintf("/tmp/%s\x1b%03d:%d", strings.Repeat("é", 100), i, i%2)
			c.Roles[role] = RoleCalls{Phases: phases, Birth: all}
			roles = append(roles, role)
		}
		for nr := range all.All() {
			c.Evidence[nr] = Evidence{Source: "observed", Roles: roles[:40], Rate: math.NaN(), Count: math.MaxUint64}
		}
		p.ABIs[abi] = c
	}
	p.Settled = Settled{PUnseen: math.NaN(), Missing: math.Inf(1)}
	data := encode(t, p)
	if len(data) > MaxSize {
		t.Fatalf("%d bytes, want at most %d", len(data), MaxSize)
	}
	back, err := Read(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("Read back: %v", err)
	}
	for _, abi := range syscalls.ABIs {
		if want, got := p.ABIs[abi].All(), back.ABIs[abi].All(); want != got {
			t.Errorf("%v: %d calls came back of %d", abi, got.Len(), want.Len())
		}
		other := back.ABIs[abi].Roles["?:1"]
		if other.Phases[Run] != syscalls.Known(abi) {
			t.Errorf("%v: the calls of roles without a name were lost", abi)
		}
	}
	if back.Settled.PUnseen != 1 {
		t.Errorf("p_unseen that is not a number came back as %v, want the worst, 1", back.Settled.PUnseen)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(encode(f, example(f)))
	f.Add([]byte(withABI(`{"phases": {"run": ["openat"]}, "args": {"openat": [{"index": 0, "value": "0x1"}]}}`)))
	f.Add([]byte(`{"version": 1, "workload": {"image": "\ud800"}, "abis": {"arm64": {"floor": ["#1023"]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		first := encode(t, p)
		again, err := Read(bytes.NewReader(first))
		if err != nil {
			t.Fatalf("Read does not read what Encode wrote: %v\n%s", err, first)
		}
		if second := encode(t, again); !bytes.Equal(first, second) {
			t.Errorf("not stable:\n%s", cmp.Diff(string(first), string(second)))
		}
	})
}
