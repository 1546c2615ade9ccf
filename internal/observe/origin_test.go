// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestOriginsAreWrittenAndRead(t *testing.T) {
	for origin := OriginUnknown; origin <= OriginAnonymous; origin++ {
		trace := Trace{Arch: syscalls.X86_64, Length: 1, Epochs: []Epoch{{}}, Cells: []Cell{{Lane: LaneService, Calls: []Seen{
			{Call: syscalls.Call{ABI: syscalls.X86_64}, Epochs: []EpochCount{{0, 1}}, Origin: origin}}}}}
		var file bytes.Buffer
		if err := Write(&file, trace); err != nil {
			t.Fatal(err)
		}
		got, err := Read(&file)
		if err != nil || !cmp.Equal(got.Cells, trace.Cells) {
			t.Errorf("%q: %v, %+v", origin, err, got.Cells)
		}
		if err := Write(&file, got.Until(1)); err != nil {
			t.Error(err)
		}
		trace.Cells[0].Calls[0].Origin = OriginAnonymous + 1
		if err := Write(&file, trace); err == nil || !strings.Contains(err.Error(), "unknown origin 9") {
			t.Errorf("an origin that there is not: %v", err)
		}
	}
	var o Origin
	if err := o.UnmarshalText([]byte("kernel")); err == nil {
		t.Error("read a name that there is not")
	}
}
