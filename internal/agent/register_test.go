// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// namespaced is a process of a user in user and mount namespaces of that user's, as rootless containers are.
func namespaced(t *testing.T, uid uint32) (pid int, mountNS uint64) {
	t.Helper()
	cmd := exec.Command("unshare", "--user", "--mount", "cat")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if _, err := in.Write([]byte{'\n'}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it answers once the namespaces are made
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/ns/mnt", &st); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, st.Ino
}

// A container that gets another name is known by it.
func TestRename(t *testing.T) {
	pid, _ := sleeper(t)
	r := start(t, nil)
	first := registration("web-whittle-new-abcd", pid)
	second := first
	second.Container.Name = "web"
	for _, reg := range []api.Registration{first, second} {
		if err := r.client.Register(t.Context(), reg); err != nil {
			t.Fatal(err)
		}
	}
	s, err := r.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Containers) != 1 || s.Containers[0].Name != "web" {
		t.Errorf("containers %+v, want one called web", s.Containers)
	}
}

// A member of the group who is not root may have its own containers observed, and has no say over anybody else's.
func TestUsersSpeakOfTheirOwn(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "unshare")
	const user, other = 65533, 65532
	mine, ns := namespaced(t, user)
	theirs, _ := namespaced(t, other)
	roots, _ := sleeper(t)
	r := start(t, nil)
	if err := r.client.Register(t.Context(), registration("root", roots)); err != nil {
		t.Fatal(err)
	}
	me := api.Peer{PID: 7, UID: user, GID: user}
	for _, tc := range []struct {
		name string
		reg  api.Registration
		want error
	}{
		{"init", registration("1", 1), api.ErrForbidden},
		{"the agent", registration("1", os.Getpid()), api.ErrForbidden},
		{"another user's", registration("1", theirs), api.ErrForbidden},
		{"root's, by its id", registration("root", mine), api.ErrForbidden},
		{"no process", registration("1", 0), api.ErrInvalid},
		{"its own", registration("mine", mine), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.reg.Container.MountNS = 1 // the user's word, like the cgroup, which counts for nothing
			if err := r.Register(t.Context(), me, tc.reg); !errors.Is(err, tc.want) {
				t.Errorf("Register = %v, want %v", err, tc.want)
			}
		})
	}
	if got := r.obs.targets[2]; len(r.obs.targets) != 2 || got.MountNS != ns || got.CgroupID != 0 || got.InitPID != mine {
		t.Errorf("observed %+v, want the mount namespace %d", r.obs.targets, ns)
	}
	if err := r.Gone(t.Context(), me, api.Gone{Engine: "podman", ID: "root"}); !errors.Is(err, api.ErrForbidden) {
		t.Errorf("Gone of root's = %v", err)
	}
	if _, done := r.obs.how(1); done {
		t.Error("a user ended the observation of root's container")
	}
	if err := r.Gone(t.Context(), me, api.Gone{Engine: "podman", ID: "mine"}); err != nil {
		t.Errorf("Gone of its own = %v", err)
	}
	until(r.journaled("web-mine ended"))
}
