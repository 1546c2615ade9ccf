// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// commands are ways in which injected Python starts a program, which leaves a mark if it runs.
var commands = []struct{ name, doc, code string }{
	{"os.system", "a shell, by the C library's system()", `os.system('id > /tmp/pwned')`},
	{"subprocess", "a shell, by vfork and execve", `__import__('subprocess').run(['/bin/sh', '-c', 'id > /tmp/pwned'])`},
	{"posix_spawn", "a shell, by posix_spawn", `os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', 'id > /tmp/pwned'], {}), 0)`},
	{"fork and execve", "a shell in a child", `p = os.fork()
if p == 0:
    try: os.execv('/bin/sh', ['sh', '-c', 'id > /tmp/pwned'])
    finally: os._exit(1)
os.waitpid(p, 0)`},
	{"execve", "a shell in the service's place", `os.execv('/bin/sh', ['sh', '-c', 'id > /tmp/pwned; sleep 60'])`},
	{"execve of a memfd", "a program that is in no file", `f = os.memfd_create('x')
os.write(f, open('/bin/dash', 'rb').read())
os.execve('/proc/self/fd/%d' % f, ['sh', '-c', 'id > /tmp/pwned; sleep 60'], {})`},
	{"reverse shell", "a connection out, and a shell at its ends", `import socket
s = socket.socket()
try: s.connect(('127.0.0.1', 8000))
finally:
    for n in range(3): os.dup2(s.fileno(), n + 50)
    os.execv('/bin/sh', ['sh', '-c', 'id > /tmp/pwned; sleep 60'])`},
	{"ctypes system()", "the C library's system(), by a foreign function interface", `import ctypes
ctypes.CDLL(None).system(b'id > /tmp/pwned')`},
}

// single calls by Python's own library. Each is a call, and what makes it; what it does is harmless.
var singles = []struct{ name, doc, code string }{
	{"rights and processes", "another user, another process", `
t('setuid', lambda: os.setuid(os.getuid()))
t('setgid', lambda: os.setgid(os.getgid()))
t('kill', lambda: os.kill(0x3fffffff, 9))
t('pidfd_open', lambda: os.pidfd_open(0x3fffffff))
t('chroot', lambda: os.chroot('/'))
t('setsid', lambda: os.setsid())
t('setpriority', lambda: os.setpriority(0, 0, 5))`},
	{"files", "files and links that a service does not make", `
open('/tmp/made', 'w').close()
t('chmod', lambda: os.chmod('/tmp/made', 0o4755))
t('symlink', lambda: os.symlink('/etc/shadow', '/tmp/link'))
t('mknodat', lambda: os.mkfifo('/tmp/fifo'))
t('memfd_create', lambda: os.memfd_create('x'))
t('splice', lambda: os.splice(0, 1, 1))`},
	{"network", "ways out, a back door, odd families", `
import socket
t('sethostname', lambda: socket.sethostname('pwned'))
t('socket', lambda: socket.socket(38, 5), 'AF_ALG')
t('socket', lambda: socket.socket(17, 3), 'AF_PACKET')
t('socket', lambda: socket.socket(16, 3, 12), 'AF_NETLINK, netfilter')
t('socket', lambda: socket.socket(40, 1), 'AF_VSOCK')
def back():
    s = socket.socket()
    t('bind', lambda: s.bind(('127.0.0.1', 4444)), 'a back door')
    t('listen', lambda: s.listen(), 'a back door')
    t('connect', lambda: s.connect(('127.0.0.1', 9)), 'a way out')
t('socket', back, 'AF_INET')`},
}

const preamble = `import os
def t(call, f, note='from Python'):
    try:
        f()
        e = 0
    except OSError as x:
        e = x.errno or 5
    r.append('%s %d %s' % (call, e, note))
`

// run code in the victim; it may add lines to the list r.
func python(ctx context.Context, t *Target, code string) (string, error) {
	return evaluated(ctx, t.Instance, fmt.Sprintf(`[(g := {'r': []}), exec(%s, g), '\n'.join(g['r'])][2]`, strconv.QuoteToASCII(preamble+code)))
}

func pythonAttacks() (all []Attack) {
	const victim = "python-victim"
	for _, c := range commands {
		all = append(all, Attack{
			Name: "injected Python: " + c.name, Kind: "command injection", Service: victim, Doc: c.doc,
			Do: func(ctx context.Context, t *Target) ([]Attempt, error) { return command(ctx, t, c.code) },
		})
	}
	for _, c := range singles {
		all = append(all, Attack{
			Name: "injected Python: " + c.name, Kind: "command injection", Service: victim, Doc: c.doc,
			Do: func(ctx context.Context, t *Target) ([]Attempt, error) {
				text, err := python(ctx, t, c.code)
				if err != nil {
					return nil, err
				}
				return attempts(text)
			},
		})
	}
	if runtime.GOARCH == "amd64" {
		all = append(all, Attack{
			Name: "injected Python: overwrites the C library's text by /proc/self/mem", Kind: "injected code", Service: victim,
			Doc: "the text of getppid() becomes a call of another number, and is called", Do: overwritten,
		})
	}
	return all
}

// attempts from lines of "call errno note".
func attempts(text string) (made []Attempt, err error) {
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		n, bad := strconv.Atoi(fields[min(1, len(fields)-1)])
		if bad != nil || len(fields) != 3 {
			return made, fmt.Errorf("the injected code answers %q", text)
		}
		made = append(made, Attempt{Call: fields[0], Errno: unix.Errno(n), Note: fields[2]})
	}
	return made, nil
}

// command that is to leave a mark. What was refused for it is what the agent counts: the C library does not say at which of its
// calls it failed.
func command(ctx context.Context, t *Target, code string) (made []Attempt, err error) {
	before, err := refusalsOf(ctx, t)
	if err != nil {
		return nil, err
	}
	answer, fault := python(ctx, t, code) // a service that was replaced does not answer
	if fault != nil {
		answer = fault.Error()
	}
	answer = strings.Join(strings.Fields(answer), " ")
	if _, err := os.Stat(t.Path("/tmp/pwned")); err == nil {
		return []Attempt{{Call: "execve", Note: "the command ran; " + answer}}, nil
	}
	after, err := refusalsOf(ctx, t)
	if err != nil {
		return nil, err
	}
	for call, count := range after {
		if count > before[call] {
			made = append(made, Attempt{Call: call, Errno: unix.EPERM, Note: "the command did not run; " + answer})
		}
	}
	if len(made) == 0 {
		return nil, fmt.Errorf("the command neither ran nor was refused: %s", answer)
	}
	return made, nil
}

func refusalsOf(ctx context.Context, t *Target) (map[string]uint64, error) {
	s, err := t.Client.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range s.Containers {
		if c.Name == t.ID {
			return refusals(c), nil
		}
	}
	return nil, fmt.Errorf("the agent knows no container %s", t.ID)
}

// overwritten text of the C library: /proc/self/mem lets a process write where it may only read, and needs no mprotect.
func overwritten(ctx context.Context, t *Target) (made []Attempt, err error) {
	name, offset, err := symbol(t, "getppid")
	if err != nil {
		return nil, err
	}
	for _, call := range words("getpgrp umask personality setuid unshare") {
		nr, ok := syscalls.Number(nativeABI(), call)
		if !ok {
			return nil, fmt.Errorf("no call %s", call)
		}
		// mov $number, %eax; mov $-1, %edi; syscall; ret: an argument of no use.
		code := []byte{0xb8, byte(nr), byte(nr >> 8), 0, 0, 0xbf, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x05, 0xc3}
		text, err := python(ctx, t, fmt.Sprintf(`
base = next(int(l.split('-')[0], 16) for l in open('/proc/self/maps') if l.rstrip().endswith(%q))
f = open('/proc/self/mem', 'r+b', 0)
f.seek(base + %d)
f.write(bytes.fromhex('%x'))
v = os.getppid()
r.append('%s %%d from overwritten text' %% (-v if v < 0 else 0))`, name, offset, code, call))
		if err != nil {
			return made, err
		}
		more, err := attempts(text)
		if made = append(made, more...); err != nil {
			return made, err
		}
	}
	return made, nil
}

// symbol of the C library that the service has mapped: the file, and where it lies from its beginning in memory.
func symbol(t *Target, name string) (file string, offset uint64, err error) {
	found, err := filepath.Glob(t.Path("/usr/lib/*-linux-gnu/libc.so.6"))
	if err != nil || len(found) == 0 {
		return "", 0, fmt.Errorf("find the C library: %d files, %w", len(found), err)
	}
	f, err := elf.Open(found[0])
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	all, err := f.DynamicSymbols()
	for _, s := range all {
		if s.Name == name {
			return filepath.Base(found[0]), s.Value, err
		}
	}
	return "", 0, fmt.Errorf("the C library has no %s: %w", name, err)
}
