// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// attempt is a call that somebody who got into the container would make.
type attempt struct {
	call string
	args [3]uint32
	why  string
}

var attempts = []attempt{
	{"unshare", [3]uint32{0x10000000}, "a user namespace, the door to most kernel bugs"},
	{"keyctl", [3]uint32{0, 0xfffffffd, 1}, "the session's keyring"},
	{"bpf", [3]uint32{0}, "create a BPF map"},
	{"userfaultfd", [3]uint32{1}, "stop the kernel inside a copy"},
	{"io_uring_setup", [3]uint32{1}, "do I/O that no filter sees"},
	{"mount", [3]uint32{}, "change the file system"},
	{"ptrace", [3]uint32{0}, "control another process"},
	{"socket", [3]uint32{17, 3, 0x300}, "a raw packet socket (AF_PACKET)"},
}

// attacker is a program that makes these calls, one after another, and exits: an ELF file of a few hundred bytes, without
// the dozens of calls that any language's start would add.
func attacker(abi syscalls.ABI, attempts []attempt) ([]byte, error) {
	var code bytes.Buffer
	for _, a := range append(attempts, attempt{call: "exit"}) {
		nr, ok := syscalls.Number(abi, a.call)
		if !ok {
			return nil, fmt.Errorf("%s has no call %s", abi, a.call)
		}
		assemble(&code, abi, nr, a.args)
	}
	const base, headers = 0x400000, 64 + 56
	machine := uint16(62)
	if abi == syscalls.ARM64 {
		machine = 183
	}
	var elf bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&elf, binary.LittleEndian, v) // a bytes.Buffer does not fail
		}
	}
	elf.WriteString("\x7fELF\x02\x01\x01")
	put([9]byte{}, uint16(2), machine, uint32(1), uint64(base+headers), uint64(64), uint64(0), uint32(0))
	put(uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0))
	size := uint64(headers + code.Len())
	put(uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000))
	elf.Write(code.Bytes())
	return elf.Bytes(), nil
}

// assemble one call with three arguments of 32 bits.
func assemble(code *bytes.Buffer, abi syscalls.ABI, nr uint32, args [3]uint32) {
	word := func(v uint32) { binary.Write(code, binary.LittleEndian, v) }
	if abi == syscalls.ARM64 {
		for reg, v := range map[uint32]uint32{8: nr, 0: args[0], 1: args[1], 2: args[2]} {
			word(0xd2800000 | v&0xffff<<5 | reg)     // movz xREG, #v
			word(0xf2a00000 | v>>16&0xffff<<5 | reg) // movk xREG, #v>>16, lsl 16
		}
		word(0xd4000001) // svc #0
		return
	}
	for i, opcode := range []byte{0xb8, 0xbf, 0xbe, 0xba} { // mov eax, edi, esi, edx
		code.WriteByte(opcode)
		word(append([]uint32{nr}, args[:]...)[i])
	}
	code.Write([]byte{0x4d, 0x31, 0xd2, 0x0f, 0x05}) // xor r10, r10; syscall
}

func native() syscalls.ABI {
	abi, _ := syscalls.Native(runtime.GOARCH)
	return abi
}

// attackService from inside the services themselves, while they serve.
func (d *demo) attackService(ctx context.Context) error {
	d.say("Somebody has taken over the running services")
	fmt.Fprintln(d.out, "None of them has a hole that a demo could use. A debugger stands in for the exploit: the process itself makes the call.")
	targets, end, err := d.targets(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := d.probe(targets); err != nil {
		return err
	}
	if err := d.execInRedis(targets[0].pid); err != nil {
		return err
	}
	if err := d.programOfPostgres(ctx); err != nil {
		return err
	}
	for _, s := range d.services {
		if err := d.inJournal(ctx, s.name, slices.Collect(maps.Keys(mustLose))); err != nil {
			return err
		}
	}
	if err := d.show(ctx, "event", "list", "postgres", "--kind", "refused", "--limit", "2"); err != nil {
		return err
	}
	return d.show(ctx, "status", "redis")
}

// bornIn is how long a process counts as being born at most, where nothing else tells that it serves: till then it may do
// what its role needs for a start.
const bornIn = 6 * time.Second

// targets are the processes that face the network. end lets go of what keeps one of them.
func (d *demo) targets(ctx context.Context) (all []target, end func(), err error) {
	var first [3]int
	for i, s := range d.services {
		if first[i], err = d.pidOf(ctx, s.name); err != nil {
			return nil, nil, err
		}
	}
	worker, err := childOf(first[1], "worker process")
	if err != nil {
		return nil, nil, err
	}
	// A session of its own: those of the load end every second.
	ctx, cancel := context.WithCancel(ctx)
	session := command(ctx, filepath.Join(filepath.Dir(d.services[2].config.Entrypoint[0]), "psql"), "-X", "-q", "-h", "127.0.0.1",
		"-p", d.services[2].port, "-U", "postgres", "template1")
	input, err := session.StdinPipe()
	if err == nil {
		err = session.Start()
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	end = func() { input.Close(); session.Wait(); cancel() }
	var backend int
	err = until(ctx, 10*time.Second, "a session of PostgreSQL waits for a query", func() bool {
		backend, err = childOf(first[2], " template1 127.0.0.1")
		return err == nil
	})
	if err != nil {
		end()
		return nil, nil, err
	}
	return []target{{"redis-server", first[0]}, {"nginx worker", worker}, {"postgres session", backend}}, end,
		sleep(ctx, bornIn)
}

// execInRedis is an execve that would succeed: the program is in the image.
func (d *demo) execInRedis(pid int) error {
	nr, _ := syscalls.Number(native(), "execve")
	was, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return err
	}
	result, err := callIn(pid, nr, [6]uint64{}, "/usr/bin/attack")
	if err != nil {
		return err
	}
	is, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil || is != was || result >= 0 {
		return fmt.Errorf("redis-server executed a program: it is %s now, %w", is, err)
	}
	fmt.Fprintf(d.out, "redis-server[%d]: execve(\"/usr/bin/attack\") = %s; it goes on serving\n", pid, unix.ErrnoName(unix.Errno(-result)))
	return nil
}

// programOfPostgres is what everybody tries who has a superuser's password: no debugger is needed here.
func (d *demo) programOfPostgres(ctx context.Context) error {
	const query = "copy (select 1) to program '/usr/bin/attack'"
	fmt.Fprintf(d.out, "postgres=# %s\n", query)
	_, err := d.services[2].psql(ctx, query)
	if err == nil {
		return errors.New("PostgreSQL executed a program")
	}
	_, said, ok := strings.Cut(err.Error(), "ERROR:")
	if !ok {
		return err
	}
	fmt.Fprintf(d.out, "ERROR:%s\n", said)
	// Which of the calls that it takes is refused first depends on how long the session has lived.
	return until(ctx, 10*time.Second, "PostgreSQL's attempt is in the journal", func() bool {
		events, err := d.events(ctx, "refused", "postgres:")
		return err == nil && slices.ContainsFunc(events, func(e api.Event) bool {
			return slices.Contains([]string{"pipe2", "clone", "clone3", "vfork"}, e.Call)
		})
	})
}

// inJournal waits until refusals of these calls are in it.
func (d *demo) inJournal(ctx context.Context, container string, calls []string) error {
	var missing []string
	err := until(ctx, 10*time.Second, "every attempt is in the journal", func() bool {
		events, err := d.events(ctx, "refused", container+":")
		missing = slices.Clone(calls)
		for _, e := range events {
			missing = slices.DeleteFunc(missing, func(call string) bool { return call == e.Call })
		}
		return err == nil && len(missing) == 0
	})
	if err != nil {
		return fmt.Errorf("%w; not there: %v", err, missing)
	}
	return nil
}

// attackExec from a program that somebody starts in the container.
func (d *demo) attackExec(ctx context.Context) error {
	d.say("Somebody starts a program in the container: podman exec redis attack")
	var calls []string
	for _, a := range attempts {
		fmt.Fprintf(d.out, "  tries %-15s %s\n", a.call, a.why)
		calls = append(calls, a.call)
	}
	if _, err := d.podman(ctx, "exec", "redis", "/usr/bin/attack"); err != nil {
		return err
	}
	if err := d.inJournal(ctx, "redis", calls); err != nil {
		return err
	}
	return d.show(ctx, "event", "list", "--kind", "refused", "--limit", strconv.Itoa(len(calls)))
}
