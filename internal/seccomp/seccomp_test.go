// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// helperVar holds a job for this binary: to execute a command under a filter instead of running tests.
const helperVar = "WHITTLE_SECCOMP_TEST_EXEC"

type job struct {
	Prog    []bpf.RawInstruction
	Options Options
	Argv    []string
	Env     []string
}

func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(helperVar)
	if !ok {
		testenv.Main(m)
	}
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = Exec(j.Prog, j.Options, j.Argv[0], j.Argv, j.Env)
	}
	// The filter may refuse to write and to exit; a trap always works.
	fmt.Fprintln(os.Stderr, "helper:", err)
	os.Exit(99)
}

// under is the command that executes argv under the program.
func under(t *testing.T, prog []bpf.RawInstruction, o Options, argv ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(job{prog, o, argv, []string{"LC_ALL=C"}})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = []string{helperVar + "=" + string(text)}
	return cmd
}

// allBut is a program that allows every native call except those named, which get EPERM.
func allBut(t *testing.T, names ...string) []bpf.RawInstruction {
	t.Helper()
	native := nativeABI(t)
	set := syscalls.Known(native)
	for _, name := range names {
		nr, ok := syscalls.Number(native, name)
		if !ok {
			continue // arm64 has no mkdir
		}
		set.Remove(nr)
	}
	return compiled(t, policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{native: {Floor: set}}})
}

func nativeABI(t *testing.T) syscalls.ABI {
	t.Helper()
	arch := strings.TrimSpace(run(t, exec.Command("uname", "-m")))
	if arch == "aarch64" {
		return syscalls.ARM64
	}
	return syscalls.X86_64
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

func compiled(t *testing.T, p policy.Policy) []bpf.RawInstruction {
	t.Helper()
	r, err := filter.FromPolicy(p, policy.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	prog, err := filter.Compile(r)
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

func TestExec(t *testing.T) {
	dir := t.TempDir()
	if out := run(t, under(t, allBut(t), Options{}, "/bin/mkdir", filepath.Join(dir, "made"))); out != "" {
		t.Errorf("mkdir says %q", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err != nil {
		t.Error(err)
	}
	refused := under(t, allBut(t, "mkdir", "mkdirat"), Options{}, "/bin/mkdir", filepath.Join(dir, "refused"))
	out, err := refused.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Operation not permitted") {
		t.Errorf("mkdir under a filter without mkdir: %v, %q; want EPERM", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "refused")); !os.IsNotExist(err) {
		t.Errorf("the refused directory: %v", err)
	}
}

// What the command inherits is what the caller of this process gave, not what the Go runtime made of it.
func TestExecInherits(t *testing.T) {
	for _, o := range []Options{{}, {NoNewPrivs: true}} {
		cmd := under(t, allBut(t), o, "/bin/sh", "-c", "ulimit -n; grep -E 'NoNewPrivs|Seccomp:|Seccomp_filters|SigBlk' /proc/self/status; env")
		got := run(t, cmd)
		limit := run(t, exec.Command("/bin/sh", "-c", "ulimit -n"))
		base := run(t, exec.Command("grep", "-E", "NoNewPrivs|Seccomp_filters|SigBlk", "/proc/self/status"))
		if !strings.HasPrefix(got, limit) {
			t.Errorf("%+v: limit of open files: got %q, want %q", o, got, limit)
		}
		privs := "NoNewPrivs:\t1"
		if !o.NoNewPrivs && os.Geteuid() == 0 {
			privs = "NoNewPrivs:\t0"
		}
		if !strings.Contains(got, privs) || !strings.Contains(got, "Seccomp:\t2") {
			t.Errorf("%+v: got %q, want %q and a filter", o, got, privs)
		}
		for line := range strings.Lines(base) {
			if strings.HasPrefix(line, "SigBlk") && !strings.Contains(got, line) {
				t.Errorf("%+v: signal mask: got %q, want %q", o, got, line)
			}
		}
		if !strings.Contains(got, "LC_ALL=C\n") || strings.Contains(got, helperVar) {
			t.Errorf("%+v: environment: %q", o, got)
		}
	}
}

func TestExecErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		prog []bpf.RawInstruction
		argv string
		want string
	}{
		{"no such program", allBut(t), "/no/such", "no such file"},
		{"execve refused", allBut(t, "execve"), "/bin/true", "operation not permitted"},
		{"not a filter", []bpf.RawInstruction{{Op: 0xffff}}, "/bin/true", "invalid argument"},
	} {
		out, err := under(t, test.prog, Options{}, test.argv).CombinedOutput()
		if err == nil || !strings.Contains(string(out), test.want) {
			t.Errorf("%s: got %v, %q; want %q", test.name, err, out, test.want)
		}
	}
	// These are found before the thread is touched.
	for want, err := range map[string]error{
		"0 instructions":    Exec(nil, Options{}, "/bin/true", []string{"true"}, nil),
		"5000 instructions": Exec(make([]bpf.RawInstruction, 5000), Options{}, "/bin/true", []string{"true"}, nil),
		"invalid argument":  Exec(allBut(t), Options{}, "/bin/\x00true", []string{"true"}, nil),
		"no arguments":      Exec(allBut(t), Options{}, "/bin/true", nil, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// probe is a static program that makes any calls it is told to.
func probe(t *testing.T) string {
	t.Helper()
	testenv.NeedGCC(t)
	path := filepath.Join(t.TempDir(), "probe")
	run(t, exec.Command("gcc", "-Wall", "-Werror", "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
		"-fcf-protection=none", "-o", path, "testdata/probe.c"))
	return path
}

type record struct {
	ABI  uint64
	Nr   uint64
	Args [6]uint64
}

// calls makes calls under a filter, and returns their results.
func calls(t *testing.T, path string, prog []bpf.RawInstruction, records []record) []int64 {
	t.Helper()
	var in, out, complaint bytes.Buffer
	if err := binary.Write(&in, binary.LittleEndian, records); err != nil {
		t.Fatal(err)
	}
	cmd := under(t, prog, Options{}, path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("probe: %v, %s", err, complaint.String())
	}
	results := make([]int64, len(records))
	if err := binary.Read(&out, binary.LittleEndian, results); err != nil {
		t.Fatal(err)
	}
	return results
}

// Nothing but execve is called between the filter and the command: a policy of the probe's own three calls and execve
// suffices, and anything else kills.
func TestExecNeedsExecveOnly(t *testing.T) {
	path := probe(t)
	table := &filter.Table{}
	for _, nr := range []uint32{0, 1, 59, 231} {
		table.Actions[nr] = filter.Allow
	}
	prog, err := filter.Compile(&filter.Rules{Tables: map[syscalls.ABI]*filter.Table{syscalls.X86_64: table}})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // a signal or a collection in the wrong moment would kill
		calls(t, path, prog, nil)
	}
}

// Invariant 1 in the kernel: every number of every ABI that this machine can make, under random policies.
func TestKernelDecidesAsPolicy(t *testing.T) {
	path := probe(t)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 4 {
		p := harmless(random)
		if round == 0 {
			delete(p.ABIs, syscalls.I386) // a foreign architecture
		}
		var records []record
		for _, abi := range []syscalls.ABI{syscalls.X86_64, syscalls.I386, syscalls.X32} {
			for nr := range uint64(syscalls.MaxNr) {
				call := syscalls.Call{ABI: abi, Nr: uint32(nr)}
				if ends(call) {
					continue
				}
				records = append(records, record{uint64(abi), nr, [6]uint64{}})
				if p.ABIs[abi] != nil && len(p.ABIs[abi].Args[call.Nr]) > 0 {
					for _, value := range []uint64{1, 2, 3, 0x10000, 1 << 32, 1<<32 + 2} {
						records = append(records, record{uint64(abi), nr, [6]uint64{value, value}})
					}
				}
			}
		}
		refused := 0
		for i, result := range calls(t, path, compiled(t, p), records) {
			r := records[i]
			call := syscalls.Call{ABI: syscalls.ABI(r.ABI), Nr: uint32(r.Nr)}
			// A filter sees the whole register of an i386 call made by 64-bit code, of which the call itself keeps half.
			d := policy.Decide(p, policy.Selection{}, call, r.Args)
			if d.Action == policy.Refuse {
				refused++
				if result != -int64(d.Errno) {
					t.Errorf("round %d: %s %s(%#x): got %d, want -%d", round, call.ABI, call, r.Args[:2], result, d.Errno)
				}
				continue
			}
			// x32 is a matter of the kernel's configuration; a call without it is ENOSYS, allowed or not.
			if result == -int64(policy.EPERM) || result == -int64(policy.ENOSYS) && call.ABI != syscalls.X32 && named(call) {
				t.Errorf("round %d: %s %s(%#x): got %d, want it to be allowed", round, call.ABI, call, r.Args[:2], result)
			}
		}
		if refused < 1500 {
			t.Errorf("round %d: %d refusals in %d calls: the test tests little", round, refused, len(records))
		}
		t.Logf("round %d: %d calls, %d refused, all as decided", round, len(records), refused)
	}
}

// named leaves out what old kernels lack: everything here that is allowed is older than this project's least kernel, but
// for the kernel's own.
func named(c syscalls.Call) bool { return !syscalls.KernelOwn(c.ABI).Has(c.Nr) }

// ends reports whether the probe does not come back from an allowed call.
func ends(c syscalls.Call) bool {
	switch c.String() {
	case "exit", "exit_group", "rt_sigreturn", "sigreturn", "restart_syscall":
		return true
	case "uretprobe", "uprobe":
		// No filter sees them on x86-64 (6.14 and 6.18, seccomp_uprobe_exception in kernel/seccomp.c): the kernel's own
		// trampolines make them, and anybody else gets SIGILL.
		return c.ABI == syscalls.X86_64
	}
	return false
}

// harmless policies allow what the probe needs, some calls that do nothing, and some of those with some arguments.
func harmless(random *rand.Rand) policy.Policy {
	p := policy.Policy{ABIs: make(map[syscalls.ABI]*policy.Calls)}
	for _, abi := range []syscalls.ABI{syscalls.X86_64, syscalls.I386} {
		c := &policy.Calls{Args: make(map[uint32][]policy.ArgRule)}
		add := func(names ...string) {
			for _, name := range names {
				if nr, ok := syscalls.Number(abi, name); ok {
					c.Floor.Add(nr)
				}
			}
		}
		if abi == syscalls.X86_64 {
			add("execve", "read", "write")
		}
		for _, name := range []string{
			"getpid", "getuid", "getgid", "geteuid", "getegid", "getppid", "gettid", "sched_yield", "getpgrp", "sync",
			"alarm", "umask", "getsid", "getpgid", "getitimer", "uname", "sysinfo", "times", "getcwd", "getrlimit",
		} {
			if random.IntN(2) == 0 {
				add(name)
			}
		}
		// getsid and getpgid take a pid: any answer but EPERM and ENOSYS will do. umask takes anything.
		for _, name := range []string{"getpriority", "umask", "getsid"} {
			add(name)
			nr, _ := syscalls.Number(abi, name)
			value := []uint64{0, 1, 2, 0x10000, 1 << 32}[random.IntN(5)]
			c.Args[nr] = []policy.ArgRule{
				{Index: 0, Mask: ^uint64(0), Value: value}, {Index: 0, Mask: 0xffff0000ffff, Value: 3},
			}
			if random.IntN(2) == 0 {
				c.Args[nr] = append(c.Args[nr], policy.ArgRule{Index: 1, Mask: 1, Value: value & 1})
			}
		}
		p.ABIs[abi] = c
	}
	return p
}
