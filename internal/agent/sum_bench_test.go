// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/workload"
)

// BenchmarkLearned is what 200 containers of one workload teach, all of them running: how much of the heap the agent needs for
// each, and how long it takes when ten of them have something new.
func BenchmarkLearned(b *testing.B) {
	f, err := os.Open("../learn/testdata/nginx.trace.json.gz")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	trace, err := observe.Read(f)
	if err != nil {
		b.Fatal(err)
	}
	w := workload.Workload{Image: "nginx", Command: []string{"nginx"}}
	book := &book{}
	teach := func(i int) {
		p := Learn(w, trace).Policy
		book.total.put(key{"podman", fmt.Sprint(i)}, plan.Guard(p, p))
	}
	const count = 200
	before := heapNow()
	for i := range count {
		teach(i)
	}
	book.total.merged()
	each := float64(heapNow()-before) / count
	for b.Loop() {
		b.StopTimer()
		for i := range 10 {
			teach(i * 20)
		}
		b.StartTimer()
		book.total.merged()
	}
	b.ReportMetric(each/1024, "KB/container")
	runtime.KeepAlive(book)
}

func heapNow() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
