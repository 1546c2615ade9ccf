// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"

	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/testenv"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestSupervisionFindings(t *testing.T) {
	one := []inject.Process{{PID: 1}}
	loaded := []inject.Attestation{{PID: 1, Filters: [][]bpf.RawInstruction{{{}}}}}
	for _, tc := range []struct {
		name string
		got  finding
		want answer
	}{
		{"a listener with everything", notifyFinding(0, 0, true), yes},
		{"a listener of Linux 5.15", notifyFinding(0, unix.EINVAL, false), yes},
		{"a listener that was there", notifyFinding(unix.EBUSY, 0, true), ""},
		{"a listener that is refused", notifyFinding(unix.EACCES, 0, true), ""},
		{"pidfd_getfd", pidfdFinding(nil), yes},
		{"no pidfd_getfd", pidfdFinding(unix.ENOSYS), no},
		{"pidfd_getfd refused", pidfdFinding(unix.EPERM), ""},
		{"ptrace of children", ptraceFinding("1"), yes},
		{"no ptrace", ptraceFinding("3"), no},
		{"a new scope", ptraceFinding("4"), ""},
		{"no scope", ptraceFinding(""), ""},
		{"attached", attachFinding(one, nil, loaded, nil), yes},
		{"the injector failed", attachFinding(nil, errors.New("killed"), nil, nil), ""},
		{"not attached", attachFinding([]inject.Process{{Err: "no"}}, nil, nil, nil), no},
		{"no process", attachFinding(nil, nil, nil, nil), ""},
		{"attached and unread", attachFinding(one, nil, nil, errors.New("killed")), ""},
		{"attached and not there", attachFinding(one, nil, []inject.Attestation{{PID: 1}}, nil), no},
		{"engine calls", callsFinding("podman", 0, nil), yes},
		{"engine does not call", callsFinding("podman", 3, nil), no},
		{"engine's files are odd", callsFinding("podman", 0, errors.New("not JSON")), ""},
		{"stored", storeFinding("LoadState=loaded\nActiveState=active\nFileDescriptorStoreMax=16384\n"), yes},
		{"may store nothing", storeFinding("LoadState=loaded\nActiveState=active\nFileDescriptorStoreMax=0\n"), no},
		{"no unit", storeFinding("LoadState=not-found\nActiveState=inactive\nFileDescriptorStoreMax=0\n"), no},
		{"failed unit", storeFinding("LoadState=loaded\nActiveState=failed\nFileDescriptorStoreMax=1\n"), no},
		{"an older systemd", storeFinding("LoadState=loaded\nActiveState=active\n"), ""},
		{"nothing said", storeFinding(""), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.got.Answer != tc.want {
				t.Errorf("got %+v, want %q", tc.got, tc.want)
			}
			if tc.got.Answer == no && tc.got.Fix == "" {
				t.Errorf("%+v does not say what to do", tc.got)
			}
			if tc.got.Answer == "" && tc.got.Detail == "" {
				t.Errorf("%+v does not say why it could not be told", tc.got)
			}
		})
	}
}

func TestListens(t *testing.T) {
	const name = "/run/whittle/holder.sock"
	for _, tc := range []struct {
		name, line string
		want       bool
	}{
		{"listening", "0000000000000000: 00000002 00000000 00010000 0005 01 78371 " + name, true},
		{"connected", "0000000000000000: 00000003 00000000 00000000 0005 03 78371 " + name, false},
		{"another", "0000000000000000: 00000002 00000000 00010000 0005 01 78371 /run/whittle/whittle.sock", false},
		{"without a name", "0000000000000000: 00000002 00000000 00010000 0005 01 78371", false},
		{"empty", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := listens(tc.line, name); got != tc.want {
				t.Errorf("%q: got %v, want %v", tc.line, got, tc.want)
			}
		})
	}
}

// On a kernel that the tests run on all of it works; a no here is a defect of the check.
func TestSupervisionOnThisHost(t *testing.T) {
	testenv.NeedRoot(t)
	for _, c := range []check{
		{"seccomp notification", false, checkNotify}, {"pidfd_getfd", false, checkPidfd}, {"cgroup freezer", false, checkFreezer},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.run(t.Context(), &app{}); got.Answer != yes {
				t.Errorf("got %+v", got)
			}
		})
	}
}
