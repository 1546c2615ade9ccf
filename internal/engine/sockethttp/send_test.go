// SPDX-License-Identifier: Apache-2.0

package sockethttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

func TestSend(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		also []int
		want error
		not  bool // it is known that nothing was done
	}{
		{"done", say(201, `{"A":"b"}`), nil, nil, true},
		{"so already", say(304, ""), []int{304}, nil, true},
		{"so already, which is no excuse", say(304, ""), nil, &Refusal{}, true},
		{"refused", say(409, `{"message":"in use\u001b"}`), nil, &Refusal{}, true},
		{"gone", say(http.StatusGone, `{}`), nil, engine.ErrUnknownContainer, true},
		{"sent elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/v1/y", http.StatusPermanentRedirect)
		}, nil, &Refusal{}, true},
		{"hangs up", hijacked(""), nil, engine.ErrOutcomeUnknown, false},
		{"not HTTP", hijacked("220 mail.example ESMTP\r\n\r\n"), nil, engine.ErrOutcomeUnknown, false},
		{"hangs up in the middle", hijacked("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), nil, engine.ErrOutcomeUnknown, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			c := serve(t, dialect(), func(w http.ResponseWriter, r *http.Request) {
				asked++
				body, _ := io.ReadAll(r.Body)
				if r.Method != http.MethodPost || r.URL.RequestURI() != "/v1/x?a=b" || string(body) != `{"in":1}` {
					t.Errorf("it was asked %s %s %s", r.Method, r.URL, body)
				}
				tt.h(w, r)
			})
			var v any
			var into any
			if tt.want != nil || tt.also == nil {
				into = &v
			}
			_, err := c.Send(t.Context(), Order{Path: "/x", Query: map[string][]string{"a": {"b"}}, Body: map[string]int{"in": 1}, Also: tt.also}, into)
			var refusal *Refusal
			if _, ok := tt.want.(*Refusal); ok {
				if !errors.As(err, &refusal) || strings.Contains(err.Error(), "\x1b") {
					t.Errorf("Send = %v, want a refusal", err)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("Send = %v, want %v", err, tt.want)
			}
			if errors.Is(err, engine.ErrOutcomeUnknown) == tt.not || asked != 1 {
				t.Errorf("Send = %v after it was asked %d times", err, asked)
			}
		})
	}
}

// Nobody was asked anything when there is no socket, and who knows when there is no time.
func TestSendInTime(t *testing.T) {
	c := New(filepath.Join(t.TempDir(), "none"), dialect())
	if _, err := c.Send(t.Context(), Order{Path: "/x"}, nil); !errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrOutcomeUnknown) {
		t.Errorf("Send = %v, want ErrUnavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c = serve(t, dialect(), func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := c.Send(ctx, Order{Path: "/x"}, nil); !errors.Is(err, engine.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) || !strings.Contains(hint.Of(err), "moby ls") {
		t.Errorf("Send = %v (hint %q), want ErrOutcomeUnknown", err, hint.Of(err))
	}
}

func TestUnframe(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"two streams", "\x01\x00\x00\x00\x00\x00\x00\x02a\n\x02\x00\x00\x00\x00\x00\x00\x02b\n", "a\nb\n"},
		{"no frames", "hello world\n", "hello world\n"},
		{"short", "\x01\x00", "\x01\x00"},
		{"more than there is", "\x01\x00\x00\x00\xff\xff\xff\xffabc", "abc"},
		{"frames, then none", "\x01\x00\x00\x00\x00\x00\x00\x02a\nplain", "a\nplain"},
	} {
		if got := string(unframe([]byte(tt.in))); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	for in, want := range map[string]string{"": "", "a\r\nb\n": "a\nb", "a\nb\nc\n": "b\nc", "\xff\x1b\t": "??    ", "\n\n": ""} {
		if got := printableLines([]byte(in), 2); got != want {
			t.Errorf("printableLines(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzUnframe(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x02a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := unframe(data); len(got) > len(data) {
			t.Errorf("unframe made %d bytes of %d", len(got), len(data))
		}
		text := printableLines(unframe(data), 10)
		if strings.Count(text, "\n") > 9 || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
			t.Errorf("%q", text)
		}
	})
}
