// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// floors are what a runtime calls between the filter and the command, with no_new_privs.
var floors = map[string][]string{
	"crun": {"close", "execve"},
	"runc": {
		"close", "openat", "fstatfs", "getdents64", "write", "epoll_ctl", "getpid", "futex", "execve", "faccessat2", "mmap",
		"madvise", "tgkill", "gettid", "sched_yield", "nanosleep", "sigaltstack", "clone", "epoll_pwait", "rt_sigprocmask",
		"munmap", "fcntl", "newfstatat", "read", "pread64", "readlinkat", "rt_sigaction", "getrandom", "prctl", "fstat",
	},
}

// runtimeCommand runs a bundle. crun refuses hosts with cgroup v1 and v2 side by side, unless v2 has no controllers: a
// mount that only crun sees says so.
func runtimeCommand(t *testing.T, name, root, bundle, id string) *exec.Cmd {
	t.Helper()
	args := []string{name, "--root", root, "run", "--bundle", bundle, id}
	if name == "crun" {
		args = slices.Insert(args, 1, "--cgroup-manager=disabled")
		const hybrid = "/sys/fs/cgroup/unified/cgroup.controllers"
		if _, err := os.Stat(hybrid); err == nil {
			testenv.NeedTool(t, "unshare", "mount")
			args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c",
				"mount --bind /dev/null " + hybrid + ` && exec "$@"`, "sh"}, args...)
		}
	}
	return exec.CommandContext(t.Context(), args[0], args[1:]...)
}

// The exported profile means to runc and crun, through libseccomp, what the policy decides: for every number.
func TestRuntimesDecideAsPolicy(t *testing.T) {
	for name, floor := range floors {
		t.Run(name, func(t *testing.T) {
			testenv.NeedRuntime(t, name)
			c := &policy.Calls{Args: map[uint32][]policy.ArgRule{
				syscallNumber(t, "getpriority"): {
					{Index: 0, Mask: ^uint64(0), Value: 1}, {Index: 0, Mask: 0xf, Value: 2}, {Index: 1, Mask: ^uint64(0), Value: 1 << 33},
				},
			}}
			for _, call := range append(floor, "read", "write", "getpriority", "getppid") {
				c.Floor.Add(syscallNumber(t, call))
			}
			p := policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: c}}
			records := sweep(c)
			results := inBundle(t, name, p, records)
			last := uint32(0)
			for i, result := range results {
				r := records[i]
				call := syscalls.Call{ABI: syscalls.X86_64, Nr: uint32(r.Nr)}
				d := policy.Decide(p, policy.Selection{}, call, r.Args)
				refused := result == -int64(policy.EPERM) || result == -int64(policy.ENOSYS)
				switch {
				case d.Action == policy.Allow && refused, d.Action == policy.Refuse && !refused:
					t.Errorf("%s(%#x): got %d, policy.Decide says %s", call, r.Args[:2], result, d.Action)
				case d.Errno == policy.ENOSYS && result != -int64(policy.ENOSYS):
					t.Errorf("%s: got %d, want ENOSYS, or programs do not fall back", call, result)
				case d.Errno == policy.EPERM && result == -int64(policy.EPERM):
					last = call.Nr
				case d.Errno == policy.EPERM && call.Nr < 335 && len(c.Args[call.Nr]) == 0:
					// Later ones may be unknown to the runtime's libseccomp, which leaves them to the default.
					t.Errorf("%s: got %d, want EPERM", call, result)
				}
			}
			t.Logf("%d calls as decided; the newest call that libseccomp knows is %s", len(results), syscalls.Name(syscalls.X86_64, last))
		})
	}
}

func syscallNumber(t *testing.T, name string) uint32 {
	t.Helper()
	nr, ok := syscalls.Number(syscalls.X86_64, name)
	if !ok {
		t.Fatalf("no call %s", name)
	}
	return nr
}

// sweep makes every refused call, and the constrained ones with several arguments.
func sweep(c *policy.Calls) (records []record) {
	for nr := range uint64(syscalls.MaxNr) {
		if ends(syscalls.Call{ABI: syscalls.X86_64, Nr: uint32(nr)}) {
			continue
		}
		if len(c.Args[uint32(nr)]) > 0 {
			for _, a := range []uint64{0, 1, 2, 0x12, 1<<32 + 1, 1<<32 + 2} {
				records = append(records, record{0, nr, [6]uint64{a, 1 << 33}}, record{0, nr, [6]uint64{a, 1<<33 + 1}})
			}
			continue
		}
		if !c.Floor.Has(uint32(nr)) {
			records = append(records, record{0, nr, [6]uint64{}})
		}
	}
	return records
}

// inBundle makes the calls in a container of the runtime under the exported profile.
func inBundle(t *testing.T, runtime string, p policy.Policy, records []record) []int64 {
	t.Helper()
	rules, err := filter.FromPolicy(p, policy.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	profile, err := filter.OCI(rules)
	if err != nil {
		t.Fatal(err)
	}
	bundle := t.TempDir()
	if err := os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(probe(t), filepath.Join(bundle, "rootfs", "probe")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"proc", "dev"} {
		if err := os.Mkdir(filepath.Join(bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	spec := specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"/probe"}, Cwd: "/", NoNewPrivileges: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{Seccomp: profile, Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
		}},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	var in, out, complaint bytes.Buffer
	if err := binary.Write(&in, binary.LittleEndian, records); err != nil {
		t.Fatal(err)
	}
	root, id := t.TempDir(), "whittle-test-"+strconv.Itoa(os.Getpid())
	cmd := runtimeCommand(t, runtime, root, bundle, id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &complaint
	t.Cleanup(func() {
		// Nothing to delete if it ended as it should; the error says just that.
		_ = exec.Command(runtime, "--root", root, "delete", "--force", id).Run()
	})
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", runtime, err, complaint.String())
	}
	results := make([]int64, len(records))
	if err := binary.Read(&out, binary.LittleEndian, results); err != nil {
		t.Fatal(err)
	}
	return results
}
