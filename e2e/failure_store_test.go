// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// TestFullStore: without a record nothing is changed, which is said; who is supervised stays so.
func TestFullStore(t *testing.T) {
	testenv.NeedBPF(t)
	dir, err := os.MkdirTemp("", "wt") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &daemon{t: t, bin: binary(t), state: filepath.Join(dir, "state"), socket: filepath.Join(dir, "sock")}
	if err := errors.Join(os.Mkdir(d.state, 0o700), unix.Mount("tmpfs", d.state, "tmpfs", 0, "size=4m,mode=700")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.state, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d.start(noEngine...)
	ms := teach(t, d, nil)
	late := ms.start(t, "late") // is not supervised yet
	d.whittle("policy", "mode", ms.workload, "enforce")
	late.supervised()
	late.works(2)
	d.whittle("policy", "mode", ms.workload, "learn")
	unheld := ms.start(t, "unheld")
	d.whittle("policy", "mode", ms.workload, "enforce")
	unheld.supervised()

	ballast := filepath.Join(d.state, "ballast")
	fill(t, ballast)
	s := ms.start(t, "without")
	s.unsupervised()
	if !strings.Contains(s.stderr.String()+d.log.String(), "full") && !strings.Contains(s.stderr.String()+d.log.String(), "space") {
		t.Errorf("nobody says that the disk is full: %s; %s", s.stderr, d.log)
	}
	out, err := d.try("attach", s.id)
	if err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("attach without a record: %v; %s", err, out)
	}
	s.unsupervised()
	for range 3 {
		late.works(2)
		unheld.works(2)
	}
	if problems := d.status().Problems; len(problems) == 0 {
		t.Error("status tells of no problem")
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if out, err := d.try("attach", s.id); err != nil {
		t.Errorf("attach with space again: %v; %s", err, out)
	}
	s.works(2)
	ms.start(t, "with").works(1)
}

// unsupervised: it runs, and nobody holds its calls.
func (s *servant) unsupervised() {
	s.t.Helper()
	if n := s.filters(); n != 1 { // of its bundle
		s.t.Errorf("%s has %d filters", s.id, n)
	}
	if m := s.does("call", forbidden, 1); m.good != 1 {
		s.t.Errorf("%s is under a filter: %+v", s.id, m)
	}
	for _, c := range s.ms.d.status().Containers {
		if c.Name == s.id && c.Supervision != nil {
			s.t.Errorf("the agent says that it is supervised: %+v", c.Supervision)
		}
	}
}

// fill the file system that a file is in.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; {
		if _, err := f.Write(make([]byte, size)); err == nil {
			continue
		} else if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		size /= 2
	}
}
