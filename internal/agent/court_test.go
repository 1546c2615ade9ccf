// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/origin"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Where it is not known what came with a container nothing vouches for its calls, injected code is still told, and it is
// said, once.
func TestHomeless(t *testing.T) {
	pid, _ := sleeper(t)
	said := 0
	h := &home{base: origin.NewGatherer(64), init: math.MaxInt32, fail: func(error) { said++ }}
	call := syscalls.Call{ABI: syscalls.X86_64, Nr: 1}
	for _, tt := range []struct {
		name     string
		mapping  string // the last word of its line in maps
		before   judge.Class
		injected bool
	}{
		{"a page of the kernel's", "[vdso]", judge.Vdso, false},
		{"memory that holds no program", "[stack]", judge.Stack, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ip := mappingOf(t, pid, tt.mapping) + 64
			if o, _ := h.base.Both(pid, ip, call); o.Class != tt.before {
				t.Fatalf("what would be told otherwise is %+v, want %v: it shows nothing", o, tt.before)
			}
			if _, _, ok := h.Quick(pid, ip, call); ok {
				t.Error("it is told at once, by nobody")
			}
			o, i := h.Both(pid, ip, call)
			if injected := judge.Injected(o) != ""; injected != tt.injected || !injected && o.Class != judge.Unknown {
				t.Errorf("the origin is %+v", o)
			}
			if i.Carrier != judge.NotRead || !strings.Contains(i.Why, "what came with the container is not known") {
				t.Errorf("a file counts: %+v", i)
			}
		})
	}
	if said != 1 {
		t.Errorf("it was said %d times", said)
	}
}

func mappingOf(t *testing.T, pid int, name string) (start uint64) {
	t.Helper()
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if strings.HasSuffix(strings.TrimSpace(line), name) {
			if _, err := fmt.Sscanf(line, "%x-", &start); err != nil {
				t.Fatal(err)
			}
			return start
		}
	}
	t.Fatalf("no %s in %s", name, list)
	return 0
}
