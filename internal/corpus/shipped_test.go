// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func shippedCorpus(t testing.TB) *Corpus {
	t.Helper()
	c, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestShipped(t *testing.T) {
	c := shippedCorpus(t)
	if len(c.Services()) < 25 || len(shipped) > 2<<20 {
		t.Errorf("%d services in %d bytes; want 25 or more, in 2 MB or less", len(c.Services()), len(shipped))
	}
	manifest, err := os.ReadFile("MANIFEST.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Services() {
		t.Run(s.Name, func(t *testing.T) {
			if !strings.Contains(string(manifest), "\n## "+s.Name+"\n") {
				t.Error("the manifest does not say how it was made")
			}
			abi, _ := syscalls.Native(s.Arch)
			stages := map[observe.Stage]bool{}
			for _, r := range s.Roles {
				stages[r.Stage] = true
				for _, name := range r.Calls {
					if _, ok := syscalls.Number(abi, name); !ok {
						t.Errorf("%s is no call of %s, where it was recorded", name, s.Arch)
					}
				}
			}
			if !stages[observe.StageBoot] || !stages[observe.StageRun] || len(s.Bursts) < 10 || len(s.Ops) < 2 {
				t.Errorf("%d bursts, stages %v, operations %q: too little", len(s.Bursts), stages, s.Ops)
			}
			if len(s.Failed) > 0 {
				t.Errorf("%q failed while it was recorded", s.Failed)
			}
		})
	}
}

// The rules that are shipped are those that would be mined now: of some calls, because all take seconds.
func TestShippedRulesAreMined(t *testing.T) {
	c := shippedCorpus(t)
	have, want := c.Rules(), mine(c.Services())
	if !slices.Equal(have.items.names, want.items.names) {
		t.Fatal("the items are others than when the corpus was written: run `make corpus`, or write it again")
	}
	for _, name := range []string{"kill", "umask", "mremap"} {
		item := want.items.of(call(t, syscalls.X86_64, name))
		got, want := have.about[item](), want.about[item]()
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(rule{})); diff != "" {
			t.Errorf("%s: the rules shipped are not those mined:\n%s", name, diff)
		}
	}
}

func TestShippedIsWrittenTheSame(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, shippedCorpus(t)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), shipped) {
		t.Error("what is read and written again has other bytes")
	}
}

// programOf a service in some stages.
func programOf(t testing.TB, c *Corpus, service, exe string, generation uint8, stages ...observe.Stage) (s syscalls.Set) {
	t.Helper()
	for _, one := range c.Services() {
		if one.Name != service {
			continue
		}
		for _, r := range one.Roles {
			if strings.HasSuffix(r.Exe, exe) && r.Generation == generation && slices.Contains(stages, r.Stage) {
				s = s.Union(did(t, syscalls.X86_64, r.Calls...))
			}
		}
	}
	if s.Empty() {
		t.Fatalf("the corpus has no %s:%d of %s", exe, generation, service)
	}
	return s
}

// Left out, a service is judged by what others do. These are Optimus's operations and their like: what the program did before,
// without the call itself, and the least lower bound that the rules of the others give.
func TestLeaveOneOut(t *testing.T) {
	c := shippedCorpus(t)
	before := []observe.Stage{observe.StageBoot, observe.StageRun}
	without := map[string]*Rules{}
	for _, tt := range []struct {
		service, exe string
		generation   uint8
		call         string
		least        float64
	}{
		{"nginx", "/nginx", 0, "kill", 0.5},
		{"nginx", "/nginx", 0, "umask", 0.5},
		{"nginx", "/nginx", 0, "lstat", 0.5},
		{"nginx", "/nginx", 1, "unlink", 0.5},
		{"apache2", "/apache2", 0, "kill", 0.5},
		{"apache2", "/apache2", 0, "dup2", 0.4},
		{"apache2", "/apache2", 0, "sysinfo", 0.4},
		{"postgresql", "/postgres", 1, "mremap", 0.4},
		{"redis", "/redis-server", 0, "fdatasync", 0.4},
		{"haproxy", "/haproxy", 0, "kill", 0.5},
	} {
		t.Run(tt.service+" "+tt.call, func(t *testing.T) {
			did := programOf(t, c, tt.service, tt.exe, tt.generation, before...)
			then := call(t, syscalls.X86_64, tt.call)
			did = did.Minus(syscalls.Equivalents(then))
			if without[tt.service] == nil {
				without[tt.service] = c.Without(tt.service).Rules()
			}
			rule, ok := without[tt.service].Best(then, did)
			if !ok || rule.Lower < tt.least {
				t.Fatalf("Best = %+v, %v; want a lower bound of %.2f", rule, ok, tt.least)
			}
			if rule.Then != tt.call || len(rule.If) == 0 || len(rule.Sources) < minServices || slices.Contains(rule.Sources, tt.service) {
				t.Errorf("the rule is %+v", rule)
			}
			t.Logf("%s → %s: %.2f, at least %.2f, of %s", rule.If, rule.Then, rule.Confidence, rule.Lower, rule.Sources)
		})
	}
}

// No rule of ours speaks for what attackers want and no service here does, whatever was done before.
func TestNoRuleForVetoedCalls(t *testing.T) {
	c := shippedCorpus(t)
	every := syscalls.Known(syscalls.X86_64)
	for _, name := range []string{
		"bpf", "keyctl", "add_key", "request_key", "unshare", "setns", "userfaultfd", "io_uring_setup", "ptrace", "process_vm_writev",
		"process_vm_readv", "init_module", "finit_module", "delete_module", "kexec_load", "mount", "umount2", "pivot_root",
		"open_by_handle_at", "perf_event_open", "reboot", "swapon",
	} {
		then := call(t, syscalls.X86_64, name)
		did := every
		did.Remove(then.Nr)
		if rule, ok := c.Rules().Best(then, did); ok {
			t.Errorf("%s: %+v", name, rule)
		}
	}
}

// The bar is 10 µs; the slowest question that there is has everything done, and the rules are asked in their order.
func BenchmarkBest(b *testing.B) {
	rules := shippedCorpus(b).Rules()
	c := shippedCorpus(b)
	did := programOf(b, c, "nginx", "/nginx", 0, observe.StageBoot, observe.StageRun)
	for _, name := range []string{"kill", "read", "ptrace", "fchown"} {
		b.Run(name, func(b *testing.B) {
			then := call(b, syscalls.X86_64, name)
			for b.Loop() {
				rules.Best(then, did)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		c, err := Read(bytes.NewReader(shipped))
		if err != nil {
			b.Fatal(err)
		}
		c.Rules()
	}
}

func BenchmarkMineOne(b *testing.B) {
	c := shippedCorpus(b)
	for b.Loop() {
		r := mine(c.Services())
		r.about[r.items.of(call(b, syscalls.X86_64, "kill"))]()
	}
}
