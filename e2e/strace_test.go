// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

const nginxConf = `daemon off; worker_processes 2; pid /run/n.pid; error_log /tmp/error.log; user www-data;
events {} http { access_log /tmp/access.log; server { listen 127.0.0.1:%s; location / { return 200 "hello"; } } }
`

// TestAgreesWithStrace: a policy has every call that strace saw on the same run of the same container, and no other.
func TestAgreesWithStrace(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedRuntime(t, "runc")
	testenv.NeedTool(t, "strace", "redis-server", "redis-cli", "nginx", "memcached")
	profile, err := filter.DefaultProfile(syscalls.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		packages []string
		follow   string
		more     func(port string) []image.File
		args     func(port string) []string
		use      func(t *testing.T, port string, signal func(string))
	}{
		{
			"redis", []string{"redis-server"}, "^redis", nil,
			func(port string) []string {
				return []string{"/usr/bin/redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", "/tmp"}
			},
			func(t *testing.T, port string, _ func(string)) {
				for _, command := range []string{"ping", "info", "set k v", "get k", "save", "bgsave", "config get *", "client list"} {
					out, err := exec.Command("redis-cli", append([]string{"-p", port}, strings.Fields(command)...)...).CombinedOutput()
					if err != nil {
						t.Fatalf("redis-cli %s: %v: %s", command, err, out)
					}
				}
			},
		},
		{
			"nginx", []string{"nginx"}, "^nginx", func(port string) []image.File {
				return []image.File{image.Data("etc/nginx.conf", 0o644, fmt.Appendf(nil, nginxConf, port))}
			},
			func(string) []string { return []string{"/usr/sbin/nginx", "-c", "/etc/nginx.conf"} },
			func(t *testing.T, port string, signal func(string)) {
				request(t, port, "GET / HTTP/1.0\r\n\r\n", "hello")
				signal("HUP")
				request(t, port, "GET / HTTP/1.0\r\n\r\n", "hello")
			},
		},
		{
			"memcached", []string{"memcached"}, "", nil,
			func(port string) []string {
				return []string{"/usr/bin/memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", port}
			},
			func(t *testing.T, port string, _ func(string)) {
				request(t, port, "set k 0 0 1\r\nv\r\nget k\r\nstats\r\nquit\r\n", "STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\nSTAT")
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := startAgent(t, "--podman", "")
			port := freePort(t)
			var more []image.File
			if tt.more != nil {
				more = tt.more(port)
			}
			files := packageFiles(t, tt.follow, more, tt.packages...)
			b := newBundle(t, d, files, func(s *specs.Spec) {
				s.Process.Args, s.Linux.Seccomp = tt.args(port), profile
			})
			id := containerID(tt.name)
			logs := t.TempDir()
			cmd := exec.Command("strace", "-ff", "-q", "--pidns-translation", "-e", "signal=none", "-o", filepath.Join(logs, "log"),
				"--", "runc", "--root", b.root, "run", "--bundle", b.dir, id)
			said := &output{}
			cmd.Stdout, cmd.Stderr = said, said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := b.remove(id); err != nil {
					t.Error(err)
				}
				_ = cmd.Wait() // for the second time, unless the test has failed half-way
			})
			eventually(t, tt.name+" listens", func() (bool, string) {
				conn, err := net.Dial("tcp", "127.0.0.1:"+port)
				if err != nil {
					return false, err.Error() + said.String()
				}
				return conn.Close() == nil, ""
			})
			tt.use(t, port, func(s string) { b.kill(t, id, s) })
			b.kill(t, id, "TERM")
			if err := cmd.Wait(); err != nil {
				t.Logf("%s ended with %v: %s", tt.name, err, said)
			}
			d.forgotten()
			compare(t, d, straceOf(t, logs, tt.args(port)[0]))
		})
	}
}

// request until the answer is as it should be.
func request(t *testing.T, port, text, want string) {
	t.Helper()
	eventually(t, "an answer", func() (bool, string) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(text)); err != nil {
			return false, err.Error()
		}
		var all []byte
		buf := make([]byte, 4096)
		for !strings.Contains(string(all), want) {
			n, err := conn.Read(buf)
			if all = append(all, buf[:n]...); err != nil {
				break
			}
		}
		return strings.Contains(string(all), want), string(all)
	})
}

func compare(t *testing.T, d *daemon, want syscalls.Set) {
	t.Helper()
	p := only(t, d, func(api.Summary) bool { return true })
	balanced(t, p)
	got := service(p, syscalls.X86_64)
	if extra := got.Minus(want); !extra.Empty() {
		t.Errorf("in the policy, not seen by strace: %v", extra.Names(syscalls.X86_64))
	}
	missing := want.Minus(got)
	for nr := range missing.All() {
		if _, ok := p.ABIs[syscalls.X86_64].Denied[nr]; ok { // said to be denied is not missing
			missing.Remove(nr)
		}
	}
	if !missing.Empty() {
		t.Errorf("seen by strace, not in the policy: %v", missing.Names(syscalls.X86_64))
	}
	for nr := range p.ABIs[syscalls.X86_64].Denied {
		if !want.Has(nr) {
			t.Errorf("%s is said to have been denied, but strace did not see it", syscalls.Name(syscalls.X86_64, nr))
		}
	}
	t.Logf("%d calls in both, %d denied", got.Intersect(want).Len(), len(p.ABIs[syscalls.X86_64].Denied))
}

var (
	straceCall  = regexp.MustCompile(`^([a-z0-9_]+)\(`)
	straceChild = regexp.MustCompile(`^(?:clone|clone3|fork|vfork)\(.*\) = \d+ /\* (\d+) in strace's PID NS \*/`)
)

// straceOf the process that executed the program, and its descendants, from then on.
func straceOf(t *testing.T, logs, program string) (calls syscalls.Set) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(logs, "log.*"))
	if err != nil {
		t.Fatal(err)
	}
	var ours []string // names of logs
	start := fmt.Sprintf("execve(%q, ", program)
	begun := map[string]bool{}
	for _, name := range names {
		for _, line := range lines(t, name) {
			if strings.HasPrefix(line, start) && strings.HasSuffix(line, " = 0") {
				ours = append(ours, name)
			}
		}
	}
	if len(ours) != 1 {
		t.Fatalf("%d processes executed %s", len(ours), program)
	}
	first := ours[0]
	for i := 0; i < len(ours); i++ {
		for _, line := range lines(t, ours[i]) {
			if ours[i] == first && !begun[first] {
				begun[first] = strings.HasPrefix(line, start) && strings.HasSuffix(line, " = 0")
				continue
			}
			if m := straceChild.FindStringSubmatch(line); m != nil {
				if _, err := strconv.Atoi(m[1]); err == nil {
					ours = append(ours, filepath.Join(logs, "log."+m[1]))
				}
			}
			m := straceCall.FindStringSubmatch(line)
			if m == nil {
				if !strings.HasPrefix(line, "+++ ") && !strings.HasPrefix(line, "--- ") {
					t.Errorf("strace says %q", line)
				}
				continue
			}
			nr, ok := syscalls.Number(syscalls.X86_64, m[1])
			if !ok {
				t.Errorf("strace saw %s", m[1])
				continue
			}
			calls.Add(nr)
		}
	}
	return calls
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}
