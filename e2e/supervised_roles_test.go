// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

const serviceImage = "localhost/service:e2e"

// loadService of testdata/service.c.
func loadService(t *testing.T, e *testbed.Env) {
	t.Helper()
	config := image.Config{Name: serviceImage}
	config.Entrypoint = []string{"/service"}
	files := append(bedtest.BusyboxFiles(t), program(t, compile(t, "service.c"), "service"))
	bedtest.Load(t, e, config, files)
}

// startService and wait until it answers.
func startService(t *testing.T, e *testbed.Env, port, name string, flags ...string) {
	t.Helper()
	args := append([]string{"run", "--detach", "--network", "host", "--name", name}, flags...)
	bedtest.Podman(t, e, append(args, serviceImage, port)...)
	eventually(t, name+" answers", func() (bool, string) {
		r, err := tryService(port, "w -")
		log, _ := e.Command(t.Context(), "logs", name).CombinedOutput()
		return err == nil && r == -1000, fmt.Sprint(r, err, string(log))
	})
}

func tryService(port, command string) (int, error) {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

// tell the service to make a call.
func tell(t *testing.T, port, command string) int {
	t.Helper()
	r, err := tryService(port, command)
	if err != nil {
		t.Fatalf("%q: %v", command, err)
	}
	return r
}

// answers that the service must give.
type answers []struct {
	command string
	want    unix.Errno
	why     string
}

func (a answers) check(t *testing.T, port string) {
	t.Helper()
	for _, tt := range a {
		if got := tell(t, port, tt.command); got != -int(tt.want) {
			t.Errorf("%q returned %d (%v), want %v: %s", tt.command, got, unix.Errno(-got), tt.want, tt.why)
		}
	}
}

// learnService in one run: its boot, its work, a reload and its stop.
func learnService(t *testing.T, e *testbed.Env, d *daemon, port, name string) (workload string) {
	t.Helper()
	startService(t, e, port, name)
	use := func() {
		t.Helper()
		for _, command := range []string{"m execve", "w socket"} {
			eventually(t, command, func() (bool, string) {
				_, err := tryService(port, command) // the worker may be killed, by a reload, when it has accepted
				return err == nil, fmt.Sprint(err)
			})
		}
	}
	use()
	c := d.container(name, "serves", func(c api.Container) bool { return c.Phase == policy.Run && c.ByPhase["run"] > 0 })
	use()
	bedtest.Podman(t, e, "kill", "--signal", "HUP", name)
	use()
	d.container(name, "has reloaded", func(c api.Container) bool { return c.ByPhase["reload"] > 0 })
	use()
	bedtest.Podman(t, e, "stop", "--time", "20", name)
	bedtest.Podman(t, e, "rm", name)
	d.forgotten()
	return c.WorkloadID
}

// TestSupervisedRoles: who may make which call when, to the call, in a service that says what it may.
func TestSupervisedRoles(t *testing.T) {
	t.Parallel()
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			e, d := supervisedBed(t, runtime)
			loadService(t, e)
			port := freePort(t)
			id := learnService(t, e, d, port, "learner")
			d.whittle("policy", "mode", id, "enforce")
			startService(t, e, port, "held")
			d.supervised("held", api.ModeEnforce, policy.Run)
			d.nothingRefused("while starting")
			rolesAreHeld(t, e, d, port)
			d.asIntended("held")
			bedtest.Podman(t, e, "stop", "--time", "20", "held")
			exited(t, e, "held")
			d.forgotten()
		})
	}
}

func rolesAreHeld(t *testing.T, e *testbed.Env, d *daemon, port string) {
	t.Helper()
	serving := answers{
		{"m execve", unix.ENOENT, "the master does it while running"},
		{"w socket", 0, "the worker does it while running"},
		{"w execve", unix.EPERM, "only the master does it"},
		{"w setuid", unix.EPERM, "the worker does it only while it is being born"},
		{"m setuid", unix.EPERM, "only workers do it"},
		{"m bind", unix.EPERM, "it is for booting only"},
		{"w bind", unix.EPERM, "the master does it, and while booting only"},
		{"m listen", unix.EPERM, "it is for booting only"},
		{"w clone", unix.EPERM, "only the master does it"},
		{"m connect", unix.EBADF, "nobody does it, but its program imports it: the panel"},
		{"w unshare", unix.EPERM, "nobody does it"},
		{"w bpf", unix.EPERM, "nobody does it"},
		{"m ptrace", unix.EPERM, "nobody does it"},
		{"w mount", unix.EPERM, "nobody does it"},
	}
	serving.check(t, port)
	eventually(t, "each is in the journal, with what to type", func() (bool, string) {
		found := map[string]bool{}
		for _, ev := range d.events() {
			if ev.Kind == "refused" && strings.Contains(ev.Text, "whittle policy allow") {
				found[ev.Call] = true
			}
		}
		for _, a := range serving {
			if a.want == unix.EPERM && !found[strings.Fields(a.command)[1]] {
				return false, fmt.Sprint(a.command, found)
			}
		}
		return true, ""
	})
	// The new worker gives up its privileges in its birth, and answers -2000 to everything if it could not.
	for range 3 {
		bedtest.Podman(t, e, "kill", "--signal", "HUP", "held")
		eventually(t, "a new worker answers", func() (bool, string) {
			r, err := tryService(port, "w socket")
			return err == nil && r == 0, fmt.Sprint(r, err)
		})
	}
	d.supervised("held", api.ModeEnforce, policy.Run) // again: the reload is over
	serving.check(t, port)
}
