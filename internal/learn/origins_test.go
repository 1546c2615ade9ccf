// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"maps"
	"testing"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestOrigins(t *testing.T) {
	call := func(nr uint32) syscalls.Call { return syscalls.Call{ABI: syscalls.X86_64, Nr: nr} }
	seen := func(nr uint32, origin observe.Origin) observe.Seen {
		return observe.Seen{Call: call(nr), Origin: origin}
	}
	trace := observe.Trace{Cells: []observe.Cell{
		{Lane: observe.LaneService, Calls: []observe.Seen{seen(0, observe.OriginFile), seen(1, observe.OriginHeap), seen(2, 0), seen(3, 0)}},
		{Lane: observe.LaneService, Birth: true, Calls: []observe.Seen{
			seen(0, observe.OriginAnonymous), seen(1, observe.OriginFile), seen(3, observe.OriginFile)}},
		{Lane: observe.LaneExec, Calls: []observe.Seen{seen(1, observe.OriginAnonymous), seen(4, observe.OriginStack)}},
		{Lane: observe.LaneRuntime, Calls: []observe.Seen{seen(5, observe.OriginFile)}},
	}}
	want := map[syscalls.Call]string{call(0): "anonymous", call(1): "heap", call(3): "file"}
	if got := Origins(trace); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Origins(observe.Trace{}); len(got) > 0 {
		t.Errorf("an empty trace has %v", got)
	}
}
