// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/bpf"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// attestation is what a look at the installed filters found.
type attestation struct {
	at       time.Time
	text     string
	deviates bool
	without  []int // processes that have a wider stack of filters than is intended, or none
}

const (
	attestEvery = 5 * time.Minute // a look stops each process for a moment
	maxAttested = 64              // processes of one container that are looked at: they inherit their filters
)

// attest reads the filters of a container's processes back from the kernel and compares what they decide with what its
// plan intends.
func (a *Agent) attest(ctx context.Context, c *tracked) {
	var rules *filter.Rules
	var sealed *filter.Rules
	var pids []int
	err := a.ask(ctx, func(m *model) error {
		if c.gone || c.held == nil {
			return nil
		}
		o := c.held.ward.Orders()
		rules = o.Plan.Booting()
		if c.isSealed {
			var err error
			if sealed, err = filter.FromPolicy(o.Policy, sealedPhases); err != nil {
				return err
			}
		}
		r, err := requestFor(c.view)
		pids = processesOf(r)
		return err
	})
	if err != nil || rules == nil {
		return
	}
	found, err := inject.Attest(ctx, a.Supervising.Exe, pids[:min(len(pids), maxAttested)])
	at := judgeFilters(found, rules, sealed)
	if err != nil {
		at = attestation{text: "the filters cannot be read back: " + err.Error(), deviates: true}
	}
	at.at = a.Now()
	_ = a.ask(ctx, func(m *model) error {
		if c.gone || c.held == nil {
			return nil
		}
		if at.deviates && c.held.attest.text != at.text {
			m.event(kindAttest, c, c.view.Name+": "+at.text)
		}
		c.held.attest = at
		if c.held.program != nil && len(at.without) > 0 {
			m.reach(c, at.without...)
		}
		return nil
	})
}

// processesOf a container, as its cgroup or its first process has them.
func processesOf(r inject.Request) (pids []int) {
	if r.Cgroup == "" {
		return r.PIDs
	}
	list, err := os.ReadFile(filepath.Join(r.Cgroup, "cgroup.procs"))
	if err != nil {
		return r.PIDs
	}
	for field := range strings.FieldsSeq(string(list)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// judgeFilters tells whether every process's stack of filters is at least as strict as what is intended.
func judgeFilters(found []inject.Attestation, rules, sealed *filter.Rules) attestation {
	var wrong []string
	var without []int
	var seen int
	for _, f := range found {
		switch {
		case f.Err != "":
			if _, err := os.Stat("/proc/" + strconv.Itoa(f.PID)); err == nil {
				wrong = append(wrong, fmt.Sprintf("process %d cannot be read: %s", f.PID, f.Err))
			}
			continue
		case f.Uneven:
			wrong = append(wrong, fmt.Sprintf("the threads of process %d have different filters", f.PID))
		}
		seen++
		if text := deviation(f.Filters, rules, sealed); text != "" {
			wrong, without = append(wrong, fmt.Sprintf("process %d: %s", f.PID, text)), append(without, f.PID)
		}
	}
	if len(wrong) > 0 {
		return attestation{text: strings.Join(wrong[:min(len(wrong), 4)], "; "), deviates: true, without: without}
	}
	return attestation{text: fmt.Sprintf("as intended: %d processes", seen)}
}

// deviation of a stack of filters from what is intended, in words; "" when it is as strict or stricter.
func deviation(stack [][]bpf.RawInstruction, rules, sealed *filter.Rules) string {
	if len(stack) == 0 {
		return "no filter"
	}
	var wider []string
	for abi, table := range rules.Tables {
		arch, ok := syscalls.AuditArch(abi)
		if !ok || abi == syscalls.X32 {
			continue
		}
		for nr := range uint32(syscalls.MaxNr) {
			if _, checked := table.Checks[nr]; checked {
				continue
			}
			want := table.Actions[nr]
			if sealed != nil && sealed.Tables[abi] != nil {
				want = stricter(want, sealed.Tables[abi].Actions[nr])
			}
			got := filter.Allow
			for _, program := range stack {
				action, err := filter.Run(program, &filter.Data{Arch: arch, Nr: nr})
				if err != nil {
					return "a filter that the kernel would not run: " + err.Error()
				}
				got = stricter(got, action)
			}
			if stricter(got, want) != got {
				wider = append(wider, syscalls.Call{ABI: abi, Nr: nr}.String())
			}
		}
	}
	if len(wider) == 0 {
		return ""
	}
	slices.Sort(wider)
	return fmt.Sprintf("%d calls are wider than intended: %s", len(wider), strings.Join(wider[:min(len(wider), 5)], ", "))
}

// stricter of two actions: the kernel takes the one that is smaller as a signed number, without its data (seccomp(2)).
func stricter(a, b filter.Action) filter.Action {
	if int32(b&^0xffff) < int32(a&^0xffff) {
		return b
	}
	return a
}

// fingerprint of a program, for the record.
func fingerprint(program []bpf.RawInstruction) string {
	h := fnv.New128a()
	for _, i := range program {
		_ = binary.Write(h, binary.LittleEndian, i) // to a hash, which takes everything
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(id))
})

// startOf a process in clock ticks since boot; 0 when it is gone.
func startOf(pid int) uint64 {
	p, err := supervise.ReadProcess(pid)
	if err != nil {
		return 0
	}
	return p.Start
}

func commOf(pid int) string {
	p, err := supervise.ReadProcess(pid)
	if err != nil {
		return "?"
	}
	return workload.Printable(p.Comm, 16)
}
