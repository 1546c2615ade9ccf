// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// MakerBench is an engine that makes containers, with its own command line.
type MakerBench struct {
	Engine engine.Maker
	// Run the engine's command line, whose options Podman and Docker share; it returns what was printed.
	Run func(ctx context.Context, args ...string) (string, error)
	// Image has a shell at /bin/sh that knows busybox's commands, and no entrypoint. Full has an entrypoint that runs its
	// arguments, a command, variables, a label, a working directory, and Volume, of which there is a new one for
	// each container.
	Image, Full string
	Volume      string // "/volume"
	// Profile is a seccomp profile that refuses mkdir.
	Profile string
	// Network is one that the engine can connect containers to; "" is none on this machine.
	Network    string
	Privileged bool // containers can have every capability on this machine
}

// ConformMaker runs the suite.
func ConformMaker(t *testing.T, bench MakerBench) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, MakerBench)
	}{
		{"makes another like it", alike},
		{"makes the very same image's", movedTag},
		{"shares the volumes", sharedVolumes},
		{"changes what is asked for", changes},
		{"changes the image", changedImage},
		{"changes the profile", changedProfile},
		{"leaves the restart policy out", changedRestart},
		{"makes one of a successor", generations},
		{"does not take a name twice", nameTaken},
		{"tells what it is made of", blueprint},
		{"tells whose network it has", networks},
		{"starts and stops", startStop},
		{"stops what ignores the signal", stubborn},
		{"kills", kills},
		{"renames", renames},
		{"removes what does not run", removes},
		{"tells how it ended", exits},
		{"bounds the logs", logs},
		{"knows whether it is healthy", health},
		{"makes none like none", makesNone},
		{"tells what it does not know the outcome of", late},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, bench) })
	}
}

// facts are what a service can see of how it was started.
const facts = `echo "args $# $*"; env | grep -v -e ^HOSTNAME= -e ^SHLVL= | sort; id; pwd; umask; ulimit -n; ulimit -c
grep -e ^Cap -e ^NoNewPrivs -e ^Seccomp: /proc/self/status; cat /proc/1/oom_score_adj; ls / /data 2>/dev/null
cut -d' ' -f5-6 /proc/self/mountinfo | grep -v -e ^/proc -e ^/sys -e ^/dev -e ^/etc -e ^/run | sort; echo facts`

// run a container in the background. It and what is called after it are removed at the end.
func (b MakerBench) run(t testing.TB, args ...string) engine.Container {
	t.Helper()
	out, err := b.Run(t.Context(), append([]string{"run", "--detach"}, args...)...)
	if err != nil {
		b.cleanup(t, "first")
		t.Fatal(err)
	}
	lines := strings.Fields(out) // warnings come first
	id := lines[len(lines)-1]
	b.cleanup(t, id)
	c, err := b.Engine.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b MakerBench) cleanup(t testing.TB, id string) {
	t.Cleanup(func() {
		// The test's own context is done by now. Not every one runs, or is still there.
		_, killed := b.Run(context.Background(), "kill", id)
		_, removed := b.Run(context.Background(), "rm", "--force", "--volumes", id)
		if err := b.Engine.Remove(context.Background(), id); err != nil { // waits for a removal that is under way
			t.Errorf("it is still there: %v, %v, %v", err, killed, removed)
		}
	})
}

func (b MakerBench) like(t testing.TB, like string, c engine.Changes) engine.Container {
	t.Helper()
	id, err := b.Engine.Make(t.Context(), like, c)
	if err != nil {
		t.Fatalf("Make: %v (hint: %s)", err, hint.Of(err))
	}
	b.cleanup(t, id)
	made, err := b.Engine.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if made.ID != id || made.Name != c.Name || made.State != engine.Created {
		t.Errorf("it made %+v, want %s, created", made, c.Name)
	}
	return made
}

// says starts a container and waits until it has written a line: what it wrote until then, squashed.
func (b MakerBench) says(t testing.TB, id, line string) string {
	t.Helper()
	if err := b.Engine.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return b.said(t, id, line)
}

func (b MakerBench) said(t testing.TB, id, line string) string {
	t.Helper()
	for {
		text, err := b.Engine.Logs(t.Context(), id, 200)
		if err != nil {
			t.Fatal(err)
		}
		if has(text, line) {
			return squashed(text)
		}
		if _, err := b.Engine.Exit(t.Context(), id); !errors.Is(err, engine.ErrRunning) {
			text, _ = b.Engine.Logs(t.Context(), id, 200)
			if has(text, line) {
				return squashed(text)
			}
			t.Fatalf("it ended (%v) after it said %q, want %q", err, text, line)
		}
		select {
		case <-t.Context().Done():
			t.Fatal("it says nothing")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// has tells whether a container has written a line, which is its last if another stands before it: where a log's driver reads a
// line in two parts, Podman 4 gives the end of the line away behind what follows it.
func has(text, line string) bool {
	return slices.Contains(strings.Split(text, "\n"), line) || strings.HasSuffix(squashed(text), squashed(line))
}

// squashed is what was written but for where its lines end.
func squashed(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == '?' { // what is not printable, as a carriage return
			return -1
		}
		return r
	}, text)
}

func dataDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("data\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func alike(t *testing.T, b MakerBench) {
	data := dataDir(t)
	file := filepath.Join(data, "env")
	if err := os.WriteFile(file, []byte("FROM_FILE=a b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := []string{b.Image, "/bin/sh", "-c", facts + "; " + forever}
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"plain", append([]string{"--network", "none"}, script...)},
		{"host network", append([]string{"--network=host"}, script...)},
		{"environment", append([]string{"--network=none", "-e", "A=1", "-eB=2", "--env=EMPTY=", "--env", "C=a=b c\"d'e\\f$g", "--env-file", file}, script...)},
		{"many", append([]string{
			"-it", "--network", "none", "-v", data + ":/data:ro", "-v" + data + ":/more", "--tmpfs", "/scratch", "--cap-add", "NET_ADMIN", "--cap-drop=CHOWN",
			"--cap-drop", "KILL", "-u", "12:34", "-w/tmp", "-h", "host", "--label", "a=b", "--label=c", "--stop-signal", "SIGQUIT", "--stop-timeout", "7",
			"--ulimit", "nofile=900:1000", "--ulimit=nproc=900:1000", "--read-only", "--memory=64m", "--security-opt", "no-new-privileges", "--restart=on-failure:3",
			"--health-cmd", "test -e /bin/sh", "--health-interval=1h", "--pids-limit", "123", "--shm-size=1m", "--oom-score-adj", "500", "--group-add=56",
		}, script...)},
		{"mount", append([]string{"--network=none", "--mount", "type=bind,source=" + data + ",target=/data,readonly", "--mount=type=tmpfs,destination=/scratch"}, script...)},
		{"odd arguments", []string{"--network", "none", b.Image, "/bin/sh", "-c", facts + "; " + forever, "--name", "-d", "a b", "", "'\"\\$x`", "--", "-p80:80", "line\nline", "é\u202e"}},
		{"leading dashes", []string{"--network", "none", "--entrypoint", "/bin/sh", b.Image, "-c", facts + "; " + forever, "--rm"}},
		{"entrypoint", []string{"--network", "none", "--entrypoint=/bin/busybox", b.Image, "sh", "-c", facts + "; " + forever}},
		{"privileged", append([]string{"--network", "none", "--privileged"}, script...)},
		{"unconfined", append([]string{"--network", "none", "--security-opt", "seccomp=unconfined"}, script...)},
		{"a profile", append([]string{"--network", "none", "--security-opt", "seccomp=" + b.Profile}, script...)},
		{"host namespaces", append([]string{"--network", "host", "--pid=host", "--ipc=host", "--uts=host"}, script...)},
		{"the image's own", []string{"--network", "none", b.Full, "sh", "-c", facts + "; " + forever}},
		{"the image's own, overridden", []string{"--network", "none", "-e", "IMAGE=no", "-l", "image=no", "-w", "/", b.Full, "sh", "-c", facts + "; " + forever}},
	} {
		if !b.Privileged && slices.Contains(tt.args, "--privileged") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			first := b.run(t, append([]string{"--name", "first"}, tt.args...)...)
			second := b.like(t, first.ID, engine.Changes{Name: "second"})
			if !slices.Equal(second.Workload.Command, first.Workload.Command) || second.Workload.ID() != first.Workload.ID() || second.Workload.Image != first.Workload.Image {
				t.Errorf("workload %+v, want %+v", second.Workload, first.Workload)
			}
			if second.Seccomp != first.Seccomp || second.NoNewPrivileges != first.NoNewPrivileges || second.StopSignal != first.StopSignal || second.ImageID != first.ImageID || !maps.Equal(second.Labels, first.Labels) {
				t.Errorf("made %+v like %+v", second, first)
			}
			want := b.said(t, first.ID, "facts")
			if got := b.says(t, second.ID, "facts"); got != want {
				t.Errorf("the successor sees\n%s\nand its predecessor saw\n%s", got, want)
			}
		})
	}
}

// movedTag: the name of the image means another by now.
func movedTag(t *testing.T, b MakerBench) {
	const name = "localhost/moved:test"
	tag := func(image string) {
		t.Helper()
		if _, err := b.Run(t.Context(), "tag", image, name); err != nil {
			t.Fatal(err)
		}
	}
	tag(b.Image)
	first := b.run(t, "--network", "none", name, "/bin/sh", "-c", forever)
	tag(b.Full)
	second := b.like(t, first.ID, engine.Changes{Name: "second"})
	if second.ImageID != first.ImageID || second.Workload.ID() != first.Workload.ID() {
		t.Errorf("made of image %s, want %s", second.ImageID, first.ImageID)
	}
	third := b.like(t, first.ID, engine.Changes{Name: "third", Image: name})
	if third.ImageID == first.ImageID {
		t.Error("the image that was asked for was not taken")
	}
}

func sharedVolumes(t *testing.T, b MakerBench) {
	first := b.run(t, "--name=first", "--network=none", "-v", "named:/named", "-v", "/anonymous", "--mount", "type=volume,destination=/other", b.Full, "sh", "-c",
		"cd "+b.Volume+" && echo a >a && echo b >/anonymous/b && echo c >/named/c && echo d >/other/d; echo written; "+forever)
	b.said(t, first.ID, "written")
	second := b.like(t, first.ID, engine.Changes{Name: "second", Command: []string{"sh", "-c", "cd " + b.Volume + "; cat a /anonymous/b /named/c /other/d; echo read"}})
	if got := b.says(t, second.ID, "read"); got != "abcdread" {
		t.Errorf("the successor reads %q", got)
	}
	of := func(id string) (volumes []engine.Mount) {
		t.Helper()
		print, err := b.Engine.Blueprint(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(print.Volumes, func(a, b engine.Mount) int { return strings.Compare(a.Destination, b.Destination) })
		return print.Volumes
	}
	volumes := of(first.ID)
	if len(volumes) != 4 || !slices.Equal(volumes, of(second.ID)) {
		t.Errorf("volumes %+v and %+v", volumes, of(second.ID))
	}
	// The end of the first takes nothing from the second.
	if err := b.Engine.Stop(t.Context(), first.ID, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Engine.Remove(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	third := b.like(t, second.ID, engine.Changes{Name: "third"})
	if got := b.says(t, third.ID, "read"); got != "abcdread" {
		t.Errorf("its own successor reads %q", got)
	}
}

func late(t *testing.T, b MakerBench) {
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", "trap '' TERM; echo up; "+forever)
	b.said(t, first.ID, "up")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"Stop":  b.Engine.Stop(ctx, first.ID, time.Minute),
		"Start": b.Engine.Start(ctx, first.ID),
	} {
		if err == nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%s after its time = %v", name, err)
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := b.Engine.Stop(ctx, first.ID, time.Minute); !errors.Is(err, engine.ErrOutcomeUnknown) || hint.Of(err) == "" {
		t.Errorf("Stop that has no time = %v (hint %q), want ErrOutcomeUnknown", err, hint.Of(err))
	}
}
