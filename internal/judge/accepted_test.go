// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/policy"
)

// rare is a legitimate operation that learning did not show.
type rare struct {
	name    string
	service string
	without []string // as if learning had not shown these
	role    string
	phases  []policy.Phase // in which the panel must accept it, each by itself
	call    string
	args    []uint64
}

// evidence of the program's own call. Who is signalled is a process that it forked.
func (r rare) evidence(t testing.TB, program string) Evidence {
	e := imports(program, r.call)
	if OfTarget(call(t, r.call)) {
		e.Target = Descendant
	}
	return e
}

var runOrReload = []policy.Phase{policy.Run, policy.Reload}

// optimus is Table 1 of Optimus (J. Cloud Computing 13:71, 2024).
func optimus() []rare {
	reload := []string{"lstat", "umask", "getpgrp", "kill"}
	reconfigure := []string{"dup2", "sysinfo", "getpgrp", "kill", "tgkill"}
	return []rare{
		{"buffer growth", "postgres", []string{"mremap"}, backend, []policy.Phase{policy.Run}, "mremap", []uint64{0x7f0000000000, 4096, 8192, 1}},
		{"reload", "nginx", reload, nginxMaster, runOrReload, "lstat", nil},
		{"reload", "nginx", reload, nginxMaster, runOrReload, "umask", nil},
		{"reload", "nginx", reload, nginxMaster, runOrReload, "getpgrp", nil},
		{"reload", "nginx", reload, nginxMaster, []policy.Phase{policy.Reload}, "kill", []uint64{77, 3}},
		{"cache purge", "nginx", []string{"unlink"}, nginxWorker, []policy.Phase{policy.Run}, "unlink", nil},
		{"reconfiguration", "httpd", reconfigure, apache, runOrReload, "dup2", nil},
		{"reconfiguration", "httpd", reconfigure, apache, runOrReload, "sysinfo", nil},
		{"reconfiguration", "httpd", reconfigure, apache, runOrReload, "getpgrp", nil},
		{"reconfiguration", "httpd", reconfigure, apache, runOrReload, "kill", []uint64{77, 10}},
		{"reconfiguration", "httpd", reconfigure, apache, runOrReload, "tgkill", []uint64{77, 77, 10}},
	}
}

func others() []rare {
	run := []policy.Phase{policy.Run}
	rotation := []string{"rename", "dup2", "dup3", "unlink", "chown", "fchown", "fchmod", "chmod", "fchmodat", "fchownat"}
	return []rare{
		{"worker respawn", "nginx", nil, nginxMaster, run, "clone", []uint64{0x1200011}},
		{"worker respawn, none learned but at boot", "postgres", []string{"clone"}, postmaster, run, "clone", []uint64{0x1200011}},
		{"BGSAVE", "redis", nil, redisServer, run, "clone", []uint64{0x1200011}},
		{"BGSAVE by vfork", "redis", nil, redisServer, run, "vfork", nil},
		{"BGSAVE, the child's renaming", "redis", nil, redisServer, run, "rename", nil},
		{"BGSAVE, waiting for it", "redis", nil, redisServer, run, "wait4", nil},
		{"BGSAVE, the child's writing", "redis", nil, "/usr/bin/redis-server:1", run, "write", nil},
		{"BGSAVE, the child's memory", "redis", nil, "/usr/bin/redis-server:1", run, "madvise", nil},
		{"BGSAVE, the child's renaming", "redis", nil, "/usr/bin/redis-server:1", run, "rename", nil},
		{"a new listener", "nginx", nil, nginxMaster, []policy.Phase{policy.Reload}, "listen", nil},
		{"AOF rewrite", "redis", nil, redisServer, run, "fdatasync", nil},
		{"AOF rewrite", "redis", nil, redisServer, run, "ftruncate", nil},
		{"replication", "redis", nil, redisServer, run, "connect", nil},
		{"core limits", "nginx", []string{"prlimit64"}, nginxMaster, runOrReload, "prlimit64", nil},
		{"core limits", "nginx", []string{"prlimit64"}, nginxMaster, runOrReload, "setrlimit", nil},
		{"log rotation", "nginx", rotation, nginxMaster, run, "rename", nil},
		{"log rotation", "nginx", rotation, nginxMaster, run, "dup2", nil},
		{"log rotation", "nginx", rotation, nginxMaster, run, "chown", []uint64{0x55, 33, 33}},
		{"log rotation", "nginx", rotation, nginxMaster, run, "fchmod", []uint64{5, 0o640}},
		{"VACUUM", "postgres", []string{"ftruncate"}, backend, run, "ftruncate", nil},
		{"VACUUM", "postgres", []string{"fallocate"}, backend, run, "fallocate", nil},
		{"VACUUM", "postgres", []string{"rename"}, backend, run, "rename", nil},
		{"checkpoint", "postgres", nil, backend, run, "sync_file_range", nil},
		{"large download", "nginx", []string{"sendfile"}, nginxWorker, run, "sendfile", nil},
		{"TLS reload", "nginx", nil, nginxMaster, runOrReload, "getrandom", nil},
		{"slow-query log", "postgres", []string{"dup2"}, postmaster, run, "dup2", nil},
		{"a thread that is started late", "redis", []string{"clone", "clone3"}, redisServer, run, "clone", []uint64{0x3d0f00}},
		{"the stack of a thread that is started late", "redis", nil, redisServer, run, "mprotect", []uint64{0x7f0000000000, 0x801000, 3}},
		{"INFO", "redis", nil, redisServer, run, "getrusage", nil},
	}
}

// TestRareOperationsAreAccepted: with evidence as the operation has it, nobody is asked.
func TestRareOperationsAreAccepted(t *testing.T) {
	for _, r := range append(optimus(), others()...) {
		p := New(learned(t, r.service, r.without...), corpus())
		for _, phase := range r.phases {
			t.Run(r.service+"/"+r.name+"/"+r.call+"/"+phase.String(), func(t *testing.T) {
				e := r.evidence(t, strings.TrimSuffix(strings.TrimSuffix(r.role, ":0"), ":1"))
				d := p.Decide(asks(t, r.role, phase, r.call, r.args...), e)
				if d.Verdict < Once {
					t.Errorf("%s", strings.Join(d.Lines(), "\n"))
				}
			})
		}
	}
}

// TestTable1IsLearned: what is accepted there is no more asked about, except for the signals, which are sensitive.
func TestTable1IsLearned(t *testing.T) {
	for _, r := range optimus() {
		p := New(learned(t, r.service, r.without...), corpus())
		d := p.Decide(asks(t, r.role, policy.Reload, r.call, r.args...), r.evidence(t, "/usr/sbin/x"))
		if d.Verdict != Learn && !strings.HasSuffix(r.call, "kill") {
			t.Errorf("%s %s: %s", r.service, r.call, strings.Join(d.Lines(), "\n"))
		}
	}
}

// TestOneReplicaDoesNotTeachTheOthers what is sensitive: it does it itself, and they do not by that.
func TestOneReplicaDoesNotTeachTheOthers(t *testing.T) {
	seen := 0
	for _, r := range append(optimus(), others()...) {
		p := New(learned(t, r.service, r.without...), corpus())
		for _, phase := range policy.Phases {
			q, e := asks(t, r.role, phase, r.call, r.args...), r.evidence(t, "/usr/sbin/x")
			alone := p.Decide(q, e)
			if alone.Verdict != Learn {
				continue
			}
			sensitive := alone.Needed >= need[Sensitive]
			if sensitive {
				seen++
			}
			e.Fleet = Fleet{Replicas: 3}
			if d := p.Decide(q, e); (d.Verdict == Once) != sensitive || d.Verdict < Once {
				t.Errorf("%s %s, the first of four: %s", r.service, r.call, strings.Join(d.Lines(), "\n"))
			}
			e.Fleet.Needed = 1
			if d := p.Decide(q, e); d.Verdict != Learn {
				t.Errorf("%s %s, the second of four: %s", r.service, r.call, strings.Join(d.Lines(), "\n"))
			}
		}
	}
	if seen == 0 {
		t.Error("nothing sensitive was ever learned")
	}
}
