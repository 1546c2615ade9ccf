// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/testbed/services"
)

// site is a process of a service that an intruder has taken over.
type site struct {
	service, process string
	// foreign are calls that its program, or a library of its, can make and that this role has no business with (redis forks to
	// save, so clone is not among its); and own are
	// calls that look harmless and that it was not seen to make.
	foreign, own string
	enter        func(context.Context, *services.Instance) (pid int, leave func(), err error)
}

var sites = []site{
	{"nginx", "worker", "setuid setgid setgroups bind listen fchmodat chown kill clone symlink", "umask getpgrp dup2 kill", child("worker process")},
	{"nginx", "master", "setuid setgid connect bind listen fchmod symlink", "getpgrp inotify_init1", first},
	{"redis", "server", "setuid setgid connect bind listen chmod fchmodat kill symlink", "umask getpgrp dup2 kill", first},
	{"postgresql", "backend", "setuid setgid bind listen connect chmod clone symlink link", "getpgrp inotify_init1 sched_setaffinity", backend},
	{"php-fpm", "worker", "setuid setgid bind listen chmod fchmodat clone symlink kill", "umask getpgrp dup2 kill", child("pool")},
	{"gunicorn", "worker", "setuid setgid bind listen connect fchmodat clone symlink kill", "getpgrp inotify_init1 kill", child("gunicorn")},
	{"memcached", "server", "setuid setgid connect bind listen chmod kill unlink symlink", "umask getpgrp dup2 kill", first},
}

func siteOf(service, process string) site {
	i := slices.IndexFunc(sites, func(s site) bool { return s.service == service && s.process == process })
	return sites[i]
}

func (s site) String() string { return s.process }

func first(_ context.Context, i *services.Instance) (int, func(), error) {
	return i.PID, func() {}, nil
}

// child of the first process by its command line. One that is just being born is waited for: its birth is another moment.
func child(text string) func(context.Context, *services.Instance) (int, func(), error) {
	return func(ctx context.Context, i *services.Instance) (pid int, leave func(), err error) {
		err = services.Eventually(ctx, 10*time.Second, func() error {
			pids, err := i.Children(text)
			if err == nil && len(pids) == 0 {
				err = fmt.Errorf("%s has no child %q", i.Name, text)
			}
			if err == nil {
				pid = pids[0]
			}
			return err
		})
		return pid, func() {}, err
	}
}

// backend of PostgreSQL's for a client that has asked something and stays.
func backend(ctx context.Context, i *services.Instance) (pid int, leave func(), err error) {
	conn, err := i.Dial(ctx, "tcp", "127.0.0.1:5432")
	if err != nil {
		return 0, nil, err
	}
	leave = func() { _ = conn.Close() }
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	// A message has its length in front, and a query a letter before that; ready for the next is Z, and how it stands.
	ready := []byte("Z\x00\x00\x00\x05I")
	for _, message := range []string{"\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00", "Q\x00\x00\x00\x0dSELECT 1\x00"} {
		_, err = io.WriteString(conn, message)
		for got := []byte(nil); err == nil && !bytes.HasSuffix(got, ready); {
			var more [4096]byte
			var n int
			n, err = conn.Read(more[:])
			got = append(got, more[:n]...)
		}
	}
	if err == nil {
		pid, _, err = child("127.0.0.1(")(ctx, i)
	}
	if err != nil {
		leave()
		return 0, nil, fmt.Errorf("be a client of PostgreSQL: %w", err)
	}
	return pid, leave, nil
}

func nativeABI() syscalls.ABI {
	abi, _ := syscalls.Native(runtime.GOARCH) // no service is started elsewhere
	return abi
}
