// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/observe"
)

func small() *Corpus {
	return New([]Service{
		{
			Name: "two", Packages: []string{"two 2.0"}, Arch: "amd64", Kernel: "Linux 6.1", Ops: []string{"load"}, Failed: []string{"reload"}, Seconds: 1.5,
			Roles:  []Role{{Exe: "/bin/two", Generation: 1, Stage: observe.StageRun, Calls: []string{"close", "openat", "read"}}},
			Bursts: []Burst{{Stage: observe.StageRun, Calls: []string{"openat", "read"}, Count: 7}, {Calls: []string{"close"}, Count: 1}},
		},
		{Name: "one", Roles: []Role{{Exe: "/bin/one", Calls: []string{"read"}}}},
	})
}

// written as a file, with whatever JSON, and no rules.
func written(t testing.TB, json string) []byte {
	t.Helper()
	return packedAs(t, string(binary.LittleEndian.AppendUint32(nil, uint32(len(json))))+json+"\x00\x00\x00")
}

// packedAs a file with whatever is in it.
func packedAs(t testing.TB, text string) []byte {
	t.Helper()
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed) // a bomb is made of it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return append(fmt.Appendf(nil, "%s %d %x\n", magic, version, sha256.Sum256(packed.Bytes())), packed.Bytes()...)
}

func TestWriteRead(t *testing.T) {
	want := small()
	var first, second bytes.Buffer
	if err := Write(&first, want); err != nil {
		t.Fatal(err)
	}
	if err := Write(&second, small()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("equal corpora give different bytes")
	}
	got, err := Read(&first)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Services(), got.Services()); diff != "" {
		t.Errorf("what is read is not what was written:\n%s", diff)
	}
	if got := want.Names(); !cmp.Equal(got, []string{"one", "two"}) {
		t.Errorf("Names() = %q", got)
	}
	if got := want.Without("one", "three").Names(); !cmp.Equal(got, []string{"two"}) {
		t.Errorf("Without(one) has %q", got)
	}
}

func TestReadBad(t *testing.T) {
	var good bytes.Buffer
	if err := Write(&good, small()); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good.Bytes())
	flipped[len(flipped)-9] ^= 1
	for _, tt := range []struct {
		name, want string
		file       []byte
	}{
		{"nothing", "it is empty", nil},
		{"something else", "it is empty, or no corpus", []byte("\x7fELF")},
		{"another line", "does not begin as a corpus", []byte("#!/bin/sh\nwhittle corpus\n")},
		{"a line without an end", "no corpus", bytes.Repeat([]byte("x"), 1<<20)},
		{"another version", "it has version 2; this program reads version 1", []byte("whittle corpus 2 abc\nrest")},
		{"truncated", "corrupt or truncated", good.Bytes()[:good.Len()-10]},
		{"a bit is flipped", "corrupt or truncated", flipped},
		{"too large", "larger than", append([]byte("whittle corpus 1 00\n"), make([]byte, maxPacked+1)...)},
		{"a bomb", "larger than", written(t, strings.Repeat(" ", maxText+1))},
		{"no JSON", "invalid character", written(t, "x")},
		{"unknown fields", "unknown field", written(t, `{"more":1}`)},
		{"a call's name", "no name of a call", written(t, `{"calls":["open\nat"]}`)},
		{"a service's name", "no good name", written(t, `{"services":[{"name":"a\u001bb"}]}`)},
		{"a service twice", "is there twice", written(t, `{"services":[{"name":"a"},{"name":"a"}]}`)},
		{"a call that is not there", "call 1 is not there", written(t, `{"calls":["read"],"services":[{"name":"a","bursts":[{"c":[1],"n":1}]}]}`)},
		{"a negative call", "call -1 is not there", written(t, `{"calls":["read"],"services":[{"name":"a","roles":[{"e":"x","c":[-1]}]}]}`)},
		{"a call twice", "not in order", written(t, `{"calls":["read"],"services":[{"name":"a","bursts":[{"c":[0,0],"n":1}]}]}`)},
		{"a stage", "in stage 9", written(t, `{"calls":["read"],"services":[{"name":"a","bursts":[{"s":9,"c":[0],"n":1}]}]}`)},
		{"an executable", "no text of a corpus", written(t, `{"calls":["read"],"services":[{"name":"a","roles":[{"e":"\n","c":[0]}]}]}`)},
		{"many services", "the most are", written(t, `{"services":[`+strings.Repeat(`{},`, maxServices)+`{}]}`)},
		{"no length", "ends before", packedAs(t, "ab")},
		{"a length past the end", "ends before", packedAs(t, "\xff\xff\xff\xff{}")},
		{"no rules", "do not end", packedAs(t, "\x02\x00\x00\x00{}")},
		{"more than the rules", "do not end", packedAs(t, "\x02\x00\x00\x00{}\x00\x00\x00more")},
		{"many rules", "65535 rules", packedAs(t, "\x02\x00\x00\x00{}\x01\x00\x04read\x01"+strings.Repeat("\x00", 16)+"\xff\xff")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Read(bytes.NewReader(tt.file))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Read = %v, %v; want an error with %q", c, err, tt.want)
			}
			if hint.Of(err) == "" {
				t.Errorf("%v has no hint", err)
			}
		})
	}
}

// Whatever is read can be written, and is the same then; nothing panics.
func FuzzRead(f *testing.F) {
	var good bytes.Buffer
	if err := Write(&good, small()); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"calls":["read"],"services":[{"name":"a","roles":[{"e":"x","c":[0]}],"bursts":[{"c":[0],"n":1}]}]}`))
	f.Add([]byte(`{}`))
	f.Add(good.Bytes())
	f.Add(small().Rules().pack())
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = Read(bytes.NewReader(data)) // as it is: most fail at the checksum
		if s, err := unpackRules(data); err == nil {
			rules := s.rules(nil, items{names: s.items})
			if !bytes.Equal(rules.pack(), data) {
				t.Error("rules that are unpacked and packed are others")
			}
		}
		c, err := Read(bytes.NewReader(written(t, string(data))))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := Write(&out, c); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := Read(&out)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if diff := cmp.Diff(c.Services(), again.Services()); diff != "" {
			t.Errorf("it is another:\n%s", diff)
		}
	})
}
