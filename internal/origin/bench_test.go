// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func warm(b *testing.B, what string) (g *Gatherer, pid int, ip uint64) {
	testenv.NeedRoot(b)
	pid, ip = start(b, exec.Command(caller(b, false), what))
	home, err := HomeOf(pid)
	if err != nil {
		b.Fatal(err)
	}
	g = NewGatherer(0).In(home)
	if err := g.Warm(pid); err != nil {
		b.Fatal(err)
	}
	return g, pid, ip
}

// cpu reports what the processor spent, which other work on the machine does not change much.
func cpu(b *testing.B) func() {
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkOrigin(b *testing.B) {
	for _, text := range []bool{false, true} {
		for _, what := range []string{"libc", "anonymous"} {
			b.Run(map[bool]string{true: "text/", false: "ioctl/"}[text]+what, func(b *testing.B) {
				g, pid, ip := warm(b, what)
				g.noIoctl.Store(text)
				b.ReportAllocs()
				defer cpu(b)()
				for b.Loop() {
					if o := g.Origin(pid, ip); o.Class == judge.Unknown {
						b.Fatalf("%+v", o)
					}
				}
			})
		}
	}
}

func BenchmarkImport(b *testing.B) {
	for _, name := range []string{"memfd_create", "unshare"} {
		b.Run(name, func(b *testing.B) {
			g, pid, _ := warm(b, "own")
			c := call(b, name)
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				if i := g.Import(pid, c); i.Carrier == judge.NotRead {
					b.Fatalf("%+v", i)
				}
			}
		})
	}
}

func BenchmarkImportCold(b *testing.B) {
	_, pid, _ := warm(b, "own")
	c := call(b, "memfd_create")
	for b.Loop() {
		NewGatherer(0).Import(pid, c)
	}
}

func BenchmarkBoth(b *testing.B) {
	g, pid, ip := warm(b, "libc")
	c := call(b, "unshare")
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		if o, i := g.Both(pid, ip, c); o.Class != judge.File || i.Carrier != judge.None {
			b.Fatalf("%+v, %+v", o, i)
		}
	}
}
