// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

func sample() Trace {
	read := syscalls.Call{ABI: syscalls.X86_64, Nr: 0}
	getpid := syscalls.Call{ABI: syscalls.I386, Nr: 20}
	return Trace{
		Arch:   syscalls.X86_64,
		Length: 3 * time.Second,
		Ended:  true,
		Epochs: []Epoch{{}, {Start: time.Second, Cause: CauseReady, Stage: StageRun}, {Start: 2 * time.Second, Cause: CauseTick, Stage: StageRun}},
		Cells: []Cell{
			{Lane: LaneService, Role: Role{Exe: "/usr/bin/x"}, Calls: []Seen{
				{Call: read, Epochs: []EpochCount{{0, 2}, {2, 7}}},
				{Call: getpid, Epochs: []EpochCount{{1, 1}}},
			}},
			{Lane: LaneExec, Role: Role{Exe: "/bin/sh", Generation: 1}, Birth: true, Calls: []Seen{{Call: read, Epochs: []EpochCount{{2, 1}}}}},
		},
		Bursts:  []Burst{{Cell: 0, ABI: syscalls.X86_64, Calls: []uint32{0, 7}, Stage: StageRun, Epochs: []EpochCount{{1, 3}, {2, 4}}}},
		Args:    []Arg{{Cell: 1, Call: read, Index: 0, Value: 2, First: 2}},
		Denied:  []Denied{{Lane: LaneService, Call: read, Errno: 1, Count: 3, First: 0, Last: 2}},
		Account: Account{Losses: map[string]uint64{"burst": 1}, Recorded: 3, Drained: 3},
	}
}

func TestFile(t *testing.T) {
	var first, second bytes.Buffer
	if err := Write(&first, sample()); err != nil {
		t.Fatal(err)
	}
	if err := Write(&second, sample()); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("the same trace was written in two ways (err %v)", err)
	}
	got, err := Read(&first)
	if diff := cmp.Diff(sample(), got); err != nil || diff != "" {
		t.Errorf("read %v, difference\n%s", err, diff)
	}
}

func TestReadRefuses(t *testing.T) {
	var valid bytes.Buffer
	if err := Write(&valid, sample()); err != nil {
		t.Fatal(err)
	}
	zip := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write([]byte(text))
		z.Close()
		return b.Bytes()
	}
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "EOF"},
		{"no gzip", []byte(`{"arch":"x86_64"}`), "gzip: invalid header"},
		{"cut short", valid.Bytes()[:valid.Len()-9], "unexpected EOF"},
		{"two traces", zip(`{"arch":"x86_64"}{"arch":"x86_64"}`), "something follows it"},
		{"unknown key", zip(`{"arch":"x86_64","cgroup":1}`), "unknown field"},
		{"no architecture", zip(`{}`), "unknown architecture"},
		{"a bomb", zip(`{"arch":"x86_64"` + strings.Repeat(" ", 10_000) + `}`), "more than 10000 bytes"},
		{"negative epoch", zip(`{"arch":"x86_64","cells":[{"lane":1,"calls":[{"call":{"ABI":"x86_64","Nr":1},"epochs":[[-1,1]]}]}]}`), "cannot unmarshal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := read(bytes.NewReader(tt.file), 10_000); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want …%s…", err, tt.want)
			}
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *Trace)
	}{
		{"architecture", func(t *Trace) { t.Arch = 9 }},
		{"epochs out of order", func(t *Trace) { t.Epochs[1].Start = 5 * time.Second }},
		{"epoch before the container", func(t *Trace) { t.Epochs[0].Start = -1 }},
		{"cause", func(t *Trace) { t.Epochs[0].Cause = 5 }},
		{"lane", func(t *Trace) { t.Cells[0].Lane = 4 }},
		{"no lane", func(t *Trace) { t.Cells[0].Lane = LaneNone }},
		{"long name", func(t *Trace) { t.Cells[0].Role.Exe = strings.Repeat("x", 5000) }},
		{"call number", func(t *Trace) { t.Cells[0].Calls[0].Call.Nr = 1024 }},
		{"call without epochs", func(t *Trace) { t.Cells[0].Calls[0].Epochs = nil }},
		{"unknown epoch", func(t *Trace) { t.Cells[0].Calls[0].Epochs = []EpochCount{{3, 1}} }},
		{"epoch past 32 bits", func(t *Trace) { t.Cells[0].Calls[0].Epochs = []EpochCount{{1 << 32, 1}} }},
		{"epoch twice", func(t *Trace) { t.Cells[0].Calls[0].Epochs = []EpochCount{{1, 1}, {1, 1}} }},
		{"burst's cell", func(t *Trace) { t.Bursts[0].Cell = -1 }},
		{"burst's call", func(t *Trace) { t.Bursts[0].Calls = []uint32{512} }},
		{"burst's order", func(t *Trace) { t.Bursts[0].Calls = []uint32{7, 7} }},
		{"argument's cell", func(t *Trace) { t.Args[0].Cell = 2 }},
		{"argument's index", func(t *Trace) { t.Args[0].Index = 6 }},
		{"argument's epoch", func(t *Trace) { t.Args[0].First = 3 }},
		{"denied call's epoch", func(t *Trace) { t.Denied[0].Last = 3 }},
	}
	if err := sample().Validate(); err != nil {
		t.Fatalf("the sample: %v", err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			trace := sample()
			tt.damage(&trace)
			if trace.Validate() == nil {
				t.Error("no error")
			}
		})
	}
}

func TestUntil(t *testing.T) {
	got := sample().Until(2)
	if err := got.Validate(); err != nil {
		t.Fatal(err)
	}
	want := sample()
	want.Length, want.Ended, want.Epochs = 2*time.Second, false, want.Epochs[:2]
	want.Cells[0].Calls[0].Epochs = []EpochCount{{0, 2}}
	want.Cells[1].Calls = nil
	want.Bursts[0].Epochs = []EpochCount{{1, 3}}
	want.Args = nil
	want.Denied[0].Last = 1
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("difference\n%s", diff)
	}
	if diff := cmp.Diff(sample(), sample().Until(3)); diff != "" {
		t.Errorf("past its end a trace is itself; difference\n%s", diff)
	}
	if empty := sample().Until(0); len(empty.Epochs) != 0 || empty.Validate() != nil {
		t.Errorf("at its beginning it has %d epochs (%v)", len(empty.Epochs), empty.Validate())
	}
}

func TestProblems(t *testing.T) {
	tests := []struct {
		name       string
		account    Account
		want       string
		calls, arg bool // lost
	}{
		{"balances", Account{Recorded: 2, Drained: 2, Losses: map[string]uint64{"cell": 0}}, "", false, false},
		{"late", Account{Late: true, AttachedLate: 1200 * time.Millisecond}, "observation began 1.2s after the container's start: the calls before that are not known", false, true},
		{"bursts", Account{Losses: map[string]uint64{"burst": 4}}, "records were lost: burst 4", false, false},
		{"arguments", Account{Losses: map[string]uint64{"argument": 4}}, "records were lost: argument 4", false, true},
		{"an unknown counter", Account{Losses: map[string]uint64{"new": 1}}, "records were lost: new 1", true, true},
		{"not drained", Account{Recorded: 2, Drained: 1}, "the kernel recorded 2 calls and 1 were read", true, true},
		{"unknown numbers", Account{UnknownNumbers: 3}, "3 calls had numbers that no kernel has", false, false},
		{"io_uring", Account{IOUring: true}, "io_uring was used: its operations are seen by no filter and no observer", false, false},
		{"cut", Account{Cut: "the agent was stopped"}, "observation ended before the container did: the agent was stopped", false, false},
		{"gap", Account{Gaps: []string{"the agent restarted"}}, "gap: the agent restarted", true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(tt.account.Problems(), "; ")
			if got != tt.want || tt.account.LostCalls() != tt.calls || tt.account.LostArgs() != tt.arg {
				t.Errorf("problems %q, lost calls %v, arguments %v; want %q, %v, %v",
					got, tt.account.LostCalls(), tt.account.LostArgs(), tt.want, tt.calls, tt.arg)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	var valid bytes.Buffer
	if err := Write(&valid, sample()); err != nil {
		f.Fatal(err)
	}
	z, _ := gzip.NewReader(&valid)
	var text bytes.Buffer
	text.ReadFrom(z)
	f.Add(text.Bytes(), uint32(1))
	f.Add([]byte(`{"arch":"arm64","epochs":[{"start":0}]}`), uint32(0))
	f.Fuzz(func(t *testing.T, text []byte, epoch uint32) {
		var file bytes.Buffer
		w := gzip.NewWriter(&file)
		w.Write(text)
		w.Close()
		trace, err := Read(&file)
		if err != nil {
			return
		}
		if err := trace.Until(epoch).Validate(); err != nil {
			t.Errorf("a prefix of a valid trace is damaged: %v", err)
		}
		var again bytes.Buffer
		if err := Write(&again, trace); err != nil {
			t.Errorf("a trace that was read cannot be written: %v", err)
		}
	})
}
