// SPDX-License-Identifier: Apache-2.0

// Package origin gathers what the kernel and the mapped files say of a held call: in what memory its instruction lies,
// and whether the program or a library besides the C library needs the call. All that it reads belongs to a container
// and is hostile. It decides nothing.
package origin

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Gatherer reads about held threads, and keeps what it read by file identity. It may be used by many goroutines.
type Gatherer struct {
	files   *cache[identity, *entry]
	layouts *cache[layout, *mapped]
	home    *Home
	// noIoctl: the kernel said that it has no PROCMAP_QUERY (Linux 6.11).
	noIoctl *atomic.Bool
}

// defaultEntries: a host runs a few hundred programs and libraries; an entry takes up to 50 KB, usually 5.
const defaultEntries = 1024

// NewGatherer with room for at most entries files; 0 means a default.
func NewGatherer(entries int) *Gatherer {
	if entries <= 0 {
		entries = defaultEntries
	}
	return &Gatherer{
		files:   newCache[identity, *entry](entries),
		layouts: newCache[layout, *mapped](entries),
		noIoctl: new(atomic.Bool),
	}
}

// In is the gatherer for one container, which shares all that was read. Without it, the home is looked for at every
// question, which costs more, and takes a process that an engine's exec started for the container's first.
func (g *Gatherer) In(h Home) *Gatherer {
	return &Gatherer{files: g.files, layouts: g.layouts, home: &h, noIoctl: g.noIoctl}
}

// homeOf is the home to judge a process's files by.
func (g *Gatherer) homeOf(p *process) (Home, error) {
	if g.home != nil {
		return *g.home, nil
	}
	return findHome(p)
}

// Origin of the call that the thread with this id waits in; ip is the address after its instruction. It counts only if
// the call is still held afterwards. What it tells is what lies there now: another thread of the process that maps a
// library over the instruction while the call is held is believed.
func (g *Gatherer) Origin(tid int, ip uint64) judge.Origin {
	if vsyscall(ip) {
		return judge.Origin{Class: judge.Vdso, Path: "[vsyscall]"}
	}
	p, err := g.open(tid)
	if err != nil {
		return judge.Origin{Why: err.Error()}
	}
	defer p.close()
	return g.origin(p, ip)
}

// Both gathers what Origin and Import tell, and costs less than one after the other.
func (g *Gatherer) Both(tid int, ip uint64, call syscalls.Call) (judge.Origin, judge.Import) {
	p, err := g.open(tid)
	if err != nil {
		return judge.Origin{Why: err.Error()}, judge.Import{Why: err.Error()}
	}
	defer p.close()
	if vsyscall(ip) {
		return g.Origin(tid, ip), g.imports(p, call)
	}
	i := g.imports(p, call) // first: it reads the build ids
	return g.origin(p, ip), i
}

// Quick is Both where that takes microseconds: all that the process has mapped was looked at before. Where it would read
// files, or tables that the container makes as long as it likes, it is false.
func (g *Gatherer) Quick(tid int, ip uint64, call syscalls.Call) (o judge.Origin, i judge.Import, ok bool) {
	if g.home == nil || g.noIoctl.Load() || vsyscall(ip) {
		return o, i, false
	}
	p, err := g.open(tid)
	if err != nil {
		return o, i, false
	}
	defer p.close()
	p.quick = true
	m, ok := g.known(p)
	if !ok || p.text {
		return o, i, false
	}
	if o = g.origin(p, ip); p.slow {
		return judge.Origin{}, i, false
	}
	return o, m.need(call), true
}

func (g *Gatherer) origin(p *process, ip uint64) judge.Origin {
	// The shortest instruction that makes a call has two bytes.
	if ip < 2 {
		return judge.Origin{Why: fmt.Sprintf("no instruction lies before %#x", ip)}
	}
	m, err := p.at(ip - 1)
	if err != nil {
		return judge.Origin{Why: err.Error()}
	}
	o := judge.Origin{Path: printable(m.name)}
	o.Class, o.Why = m.class()
	if o.Class != judge.File && o.Class != judge.Vdso {
		return o
	}
	if o.Class == judge.File {
		o.Offset = m.offset + (ip - 1 - m.start)
		o.Class, o.Why = g.classifyFile(p, m, &o)
	}
	if o.Class != judge.File && o.Class != judge.Vdso {
		return o
	}
	if ip-2 < m.start {
		o.Class, o.Why = judge.Writable, "the instruction lies across the beginning of the mapping"
		return o
	}
	if changed, err := p.modified(ip-2, ip-1); err != nil {
		o.Class, o.Why = judge.Unknown, err.Error()
	} else if changed {
		o.Class, o.Why = judge.Writable, "the page of the instruction was modified in memory"
	}
	return o
}

// classifyFile by who can have written it, and names its build id where it was read before.
func (g *Gatherer) classifyFile(p *process, m mapping, o *judge.Origin) (judge.Class, string) {
	home, err := g.homeOf(p)
	if err != nil {
		return judge.Unknown, err.Error()
	}
	f, err := p.file(m)
	if err != nil {
		return judge.Unknown, err.Error()
	}
	defer f.close()
	if e, ok := g.files.get(f.id); ok {
		o.BuildID = e.calls.BuildID
	}
	why, err := p.foreign(f, home)
	if err != nil {
		return judge.Unknown, err.Error()
	}
	if why != "" {
		return judge.Foreign, why
	}
	return judge.File, ""
}

// vsyscall is the page of the oldest calls of x86-64, the same in each process and not in its list of mappings.
func vsyscall(ip uint64) bool { return ip >= 0xffffffffff600000 && ip < 0xffffffffff601000 }

// class of a mapping by what the kernel says of it; the page and the file are not looked at. Names in brackets are the
// kernel's: the path of a file begins with a slash, and a name that the process gave is in "[anon:…]".
func (m mapping) class() (judge.Class, string) {
	switch {
	case m.name == "[heap]":
		return judge.Heap, ""
	case m.name == "[stack]":
		return judge.Stack, ""
	case m.name == "" || strings.HasPrefix(m.name, "[anon"), unnamed(m.name):
		return judge.Anonymous, ""
	case strings.HasPrefix(m.name, "/memfd:"):
		return judge.Memfd, ""
	case m.write:
		return judge.Writable, "the mapping is writable"
	case !m.exec:
		return judge.Unknown, "the mapping is not executable any more"
	case m.name == "[vdso]":
		return judge.Vdso, ""
	case m.inode == 0 || strings.HasPrefix(m.name, "["):
		return judge.Unknown, "a mapping of a kind that is not known"
	case strings.HasSuffix(m.name, " (deleted)"):
		return judge.Foreign, "the file was deleted"
	}
	return judge.File, ""
}

// unnamed are the files that the kernel makes for shared memory of no file: mmap, shmget, huge pages.
func unnamed(name string) bool {
	for _, prefix := range []string{"/dev/zero (deleted)", "/SYSV", "/anon_hugepage", "/[aio]"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
