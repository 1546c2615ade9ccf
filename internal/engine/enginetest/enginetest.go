// SPDX-License-Identifier: Apache-2.0

// Package enginetest is what every engine adapter must do, as tests against the real engine. It starts no engine itself.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// Bench is an engine with the means to start containers. Its image has a shell at /bin/sh.
type Bench struct {
	Engine engine.Engine
	// Start a container in the background; it returns the full id. The test removes it at the end.
	Start func(t testing.TB, c Container) string
	// Kill it, and return when the engine knows.
	Kill func(t testing.TB, id string)
	// Image is the name of the image that Start uses.
	Image string
	// Runtime is the name of the OCI runtime in use.
	Runtime string
	// ImageOnly engines start nothing but images.
	ImageOnly bool
}

// Container to start.
type Container struct {
	Name       string
	Script     string // for /bin/sh -c
	Labels     map[string]string
	StopSignal string
	Unconfined bool
	NoNewPrivs bool
	NoImage    bool // on a root file system that is no image
}

const forever = "while :; do sleep 1000; done"

// Conform runs the suite.
func Conform(t *testing.T, bench Bench) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, Bench)
	}{
		{"describes a running container", running},
		{"lists what runs", lists},
		{"tells profiles and privileges apart", confinement},
		{"two of one image and command are one workload", replicas},
		{"does not know every name", unknown},
		{"makes names printable", printable},
		{"identifies what has no image", noImage},
		{"reports starts and ends", events},
		{"bears containers that die", dying},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, bench) })
	}
}

func inspect(t *testing.T, b Bench, id string) engine.Container {
	t.Helper()
	c, err := b.Engine.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func running(t *testing.T, b Bench) {
	id := b.Start(t, Container{Name: "described", Script: forever, StopSignal: "SIGQUIT"})
	for _, by := range []string{id, id[:12], "described"} {
		c := inspect(t, b, by)
		if c.ID != id || c.Name != "described" || c.Engine != b.Engine.Name() || c.State != engine.Running {
			t.Errorf("Inspect(%s) = %+v", by, c)
		}
		if want := []string{"/bin/sh", "-c", forever}; !slices.Equal(c.Workload.Command, want) {
			t.Errorf("command %q, want %q", c.Workload.Command, want)
		}
		if c.Workload.Image != b.Image || !strings.HasPrefix(c.Workload.Digest, "sha256:") || len(c.Workload.Digest) != 71 {
			t.Errorf("image %q, digest %q; want %q and a digest", c.Workload.Image, c.Workload.Digest, b.Image)
		}
		if c.StopSignal != 3 || c.StartedAt.IsZero() {
			t.Errorf("stop signal %d, started at %v", c.StopSignal, c.StartedAt)
		}
		if c.Runtime.Name != b.Runtime || !strings.HasSuffix(c.Runtime.Path, "/"+b.Runtime) {
			t.Errorf("runtime %+v, want %s", c.Runtime, b.Runtime)
		}
		located(t, c)
	}
	b.Kill(t, id)
	c := inspect(t, b, id)
	if c.State != engine.Exited || c.PID != 0 || c.CgroupID != 0 || c.MountNS != 0 {
		t.Errorf("after it was killed: %+v", c)
	}
}

// located checks against the kernel.
func located(t *testing.T, c engine.Container) {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", c.PID))
	if err != nil || link != fmt.Sprintf("mnt:[%d]", c.MountNS) {
		t.Errorf("mount namespace %d, the kernel says %s (%v)", c.MountNS, link, err)
	}
	if own, err := os.Readlink("/proc/self/ns/mnt"); err != nil || own == link {
		t.Errorf("mount namespace %d is the test's own (%v)", c.MountNS, err)
	}
	if c.CgroupID <= 1 || !inCgroup(t, c.CgroupID, c.PID) {
		t.Errorf("cgroup id %d is not of the cgroup that process %d is in", c.CgroupID, c.PID)
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.PID))
	if err != nil || !strings.HasPrefix(string(comm), c.Workload.Command[0]) {
		t.Errorf("process %d runs %q (%v)", c.PID, comm, err)
	}
}

// inCgroup looks the other way round: through all cgroups, for the one with this inode, whether the process is listed there.
func inCgroup(t *testing.T, id uint64, pid int) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir("/sys/fs/cgroup", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // cgroups come and go
		}
		var st unix.Stat_t
		if unix.Stat(name, &st) != nil || st.Ino != id {
			return nil
		}
		var mount unix.Statfs_t
		if unix.Statfs(name, &mount) != nil || mount.Type != unix.CGROUP2_SUPER_MAGIC {
			return nil
		}
		procs, err := os.ReadFile(filepath.Join(name, "cgroup.procs"))
		found = err == nil && slices.Contains(strings.Fields(string(procs)), strconv.Itoa(pid))
		return filepath.SkipAll
	})
	if err != nil {
		t.Error(err)
	}
	return found
}

func lists(t *testing.T, b Bench) {
	var ids []string
	for range 3 {
		ids = append(ids, b.Start(t, Container{Script: forever}))
	}
	b.Kill(t, ids[2])
	list, err := b.Engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cgroups := make(map[uint64]string)
	for _, c := range list {
		if other := cgroups[c.CgroupID]; other != "" {
			t.Errorf("%s and %s have the same cgroup id", c.ID, other)
		}
		cgroups[c.CgroupID] = c.ID
	}
	for i, id := range ids {
		listed := slices.ContainsFunc(list, func(c engine.Container) bool { return c.ID == id })
		if want := i < 2; listed != want {
			t.Errorf("container %d listed: %v, want %v", i, listed, want)
		}
	}
}

func confinement(t *testing.T, b Bench) {
	for _, tt := range []struct {
		name    string
		c       Container
		seccomp string
		nnp     bool
	}{
		{"nothing asked", Container{}, engine.SeccompDefault, false},
		{"unconfined", Container{Unconfined: true}, engine.SeccompUnconfined, false},
		{"no new privileges", Container{NoNewPrivs: true}, engine.SeccompDefault, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.Script = forever
			c := inspect(t, b, b.Start(t, tt.c))
			if c.Seccomp != tt.seccomp || c.NoNewPrivileges != tt.nnp {
				t.Errorf("seccomp %q, no_new_privs %v; want %q, %v", c.Seccomp, c.NoNewPrivileges, tt.seccomp, tt.nnp)
			}
		})
	}
}

func replicas(t *testing.T, b Bench) {
	first := inspect(t, b, b.Start(t, Container{Script: forever}))
	second := inspect(t, b, b.Start(t, Container{Script: forever}))
	other := inspect(t, b, b.Start(t, Container{Script: "sleep 1001"}))
	if first.Workload.ID() != second.Workload.ID() {
		t.Errorf("%+v and %+v are two workloads", first.Workload, second.Workload)
	}
	if first.Workload.ID() == other.Workload.ID() {
		t.Errorf("%+v and %+v are one workload", first.Workload, other.Workload)
	}
}

func unknown(t *testing.T, b Bench) {
	for _, name := range []string{"no-such-container", strings.Repeat("0", 64), "", "..", "a/../b", "a?b", "x\x1b[31m\n", "%2e%2e"} {
		c, err := b.Engine.Inspect(t.Context(), name)
		if !errors.Is(err, engine.ErrUnknownContainer) {
			t.Errorf("Inspect(%q) = %+v, %v; want ErrUnknownContainer", name, c, err)
			continue
		}
		if hint.Of(err) == "" {
			t.Errorf("Inspect(%q): %v has no hint", name, err)
		}
		if strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("Inspect(%q): the error is not printable: %q", name, err)
		}
	}
}

func printable(t *testing.T, b Bench) {
	id := b.Start(t, Container{Script: forever, Labels: map[string]string{"evil\x1b[2J": "red\x1b[31m\nwhittle: error: none", "long": strings.Repeat("x", 5000)}})
	c := inspect(t, b, id)
	if len(c.Labels) < 2 {
		t.Errorf("labels %q", c.Labels)
	}
	for key, value := range c.Labels {
		if strings.ContainsAny(key+value, "\x1b\n\r\x00") || len(value) > 1000 {
			t.Errorf("label %q = %q is not printable", key, value)
		}
	}
}

func noImage(t *testing.T, b Bench) {
	if b.ImageOnly {
		return
	}
	c := inspect(t, b, b.Start(t, Container{Script: forever, NoImage: true}))
	if c.Workload.Digest != "" || c.Workload.Image == "" {
		t.Errorf("workload %+v, want a name and no digest", c.Workload)
	}
	located(t, c)
}

func events(t *testing.T, b Bench) {
	watcher, ok := b.Engine.(engine.Watcher)
	if !ok {
		return // an optional ability
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan engine.Event, 100)
	done := make(chan error, 1)
	go func() { done <- watcher.Watch(ctx, func(e engine.Event) { seen <- e }) }()
	next := func(id string, kind engine.EventKind) {
		t.Helper()
		timeout := time.NewTimer(time.Minute) // only to end a test that has failed
		defer timeout.Stop()
		for {
			select {
			case e := <-seen:
				if e.ID != id {
					continue
				}
				if e.Kind != kind {
					t.Fatalf("%+v, want %s", e, kind)
				}
				return
			case err := <-done:
				t.Fatalf("Watch returned %v", err)
			case <-timeout.C:
				t.Fatalf("no event %s of %q", kind, id)
			}
		}
	}
	next("", engine.Ready)
	long := b.Start(t, Container{Script: forever})
	next(long, engine.Start)
	short := b.Start(t, Container{Script: "exit 3"})
	next(short, engine.Start)
	next(short, engine.Die)
	if maker, ok := b.Engine.(engine.Maker); ok {
		if err := maker.Rename(ctx, long, "renamed"); err != nil {
			t.Fatal(err)
		}
		next(long, engine.Rename)
		if c := inspect(t, b, long); c.Name != "renamed" {
			t.Errorf("it is called %q", c.Name)
		}
	}
	b.Kill(t, long)
	next(long, engine.Die)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch after its end: %v", err)
	}
}

// dying containers are never described with ids that are not theirs.
func dying(t *testing.T, b Bench) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			list, err := b.Engine.List(t.Context())
			if err != nil {
				t.Errorf("List: %v", err)
				return
			}
			for _, c := range list {
				if !c.State.Alive() || c.PID <= 0 || c.CgroupID <= 1 || c.MountNS == 0 {
					t.Errorf("listed: %+v", c)
				}
			}
		}
	})
	for range 5 {
		id := b.Start(t, Container{Script: "exit 0"})
		for {
			c := inspect(t, b, id)
			if c.State == engine.Exited && c.PID == 0 && c.CgroupID == 0 && c.MountNS == 0 {
				break
			}
			if c.State == engine.Exited {
				t.Fatalf("exited, and yet %+v", c)
			}
		}
	}
}
