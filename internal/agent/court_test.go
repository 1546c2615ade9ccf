// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/origin"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Where it is not known what came with a container nothing vouches for its calls, injected code is still told, and it is
// said, once.
func TestHomeless(t *testing.T) {
	said := 0
	h := &home{base: origin.NewGatherer(64), init: math.MaxInt32, fail: func(error) { said++ }}
	call := syscalls.Call{ABI: syscalls.X86_64, Nr: 1}
	program, heap := reflect.ValueOf(TestHomeless).Pointer()+16, uintptr(unsafe.Pointer(new([64]byte)))+16
	if o, _ := h.base.Both(os.Getpid(), uint64(program), call); o.Class != judge.File {
		t.Fatalf("this test's own code is %+v: it shows nothing", o)
	}
	for _, tt := range []struct {
		name string
		ip   uintptr
		want judge.Class
		why  string
	}{
		{"the program", program, judge.Unknown, "what came with the container is not known"},
		{"memory that holds no program", heap, judge.Anonymous, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, ok := h.Quick(os.Getpid(), uint64(tt.ip), call); ok {
				t.Error("it is told at once, by nobody")
			}
			o, i := h.Both(os.Getpid(), uint64(tt.ip), call)
			if o.Class != tt.want || !strings.Contains(o.Why, tt.why) {
				t.Errorf("the origin is %+v, want %v", o, tt.want)
			}
			if i.Carrier != judge.NotRead || i.Object != "" || i.Why == "" {
				t.Errorf("a file counts: %+v", i)
			}
		})
	}
	if said != 1 {
		t.Errorf("it was said %d times", said)
	}
}
