// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/units"
	"github.com/whittle-sec/whittle/internal/workload"
	"golang.org/x/sys/unix"
)

func TestDialects(t *testing.T) {
	const startingUp = "E\x00\x00\x00\x54SFATAL\x00VFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"
	for _, tt := range []struct {
		name     string
		commands []string
		want     string // the dialect; "" none
		question string // a part of it
		answer   string
		notYet   bool
	}{
		{"redis that loads", []string{"redis-server"}, "Redis", "PING", "-LOADING Redis is loading the dataset in memory\r\n", true},
		{"redis", []string{"sh", "redis-server"}, "Redis", "PING", "+PONG\r\n", false},
		{"redis with a password", []string{"redis-server"}, "Redis", "PING", "-NOAUTH Authentication required.\r\n", false},
		{"postgres that starts up", []string{"postgres"}, "PostgreSQL", "user\x00whittle\x00", startingUp, true},
		{"postgres", []string{"postgres"}, "PostgreSQL", "user\x00", "R\x00\x00\x00\x08\x00\x00\x00\x05", false},
		{"postgres without such a user", []string{"postgres"}, "PostgreSQL", "user\x00", "E\x00\x00\x00\x10SFATAL\x00C28000\x00\x00", false},
		{"another", []string{"nginx"}, "", "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := dialectOf(tt.commands)
			if d == nil || tt.want == "" {
				if d != nil || tt.want != "" {
					t.Fatalf("dialect %v, want %q", d, tt.want)
				}
				return
			}
			here, there := net.Pipe()
			asked := make(chan string, 1)
			go func() {
				defer there.Close()
				question := make([]byte, len(d.question))
				_, _ = io.ReadFull(there, question)
				asked <- string(question)
				_, _ = there.Write([]byte(tt.answer))
			}()
			defer here.Close()
			answer, err := d.ask(t.Context(), here)
			if question := <-asked; err != nil || d.name != tt.want || !strings.Contains(question, tt.question) || d.notYet(answer) != tt.notYet {
				t.Errorf("%s was asked %q and answered %q, %v: not yet is %v, want %v", d.name, question, answer, err, d.notYet(answer), tt.notYet)
			}
		})
	}
}

// The length in PostgreSQL's first message counts itself.
func TestPostgresMessage(t *testing.T) {
	q := dialectOf([]string{"postgres"}).question
	if n := int(q[3]); n != len(q) || q[0]|q[1]|q[2] != 0 {
		t.Errorf("the message says that it has %d bytes, and has %d", n, len(q))
	}
}

func TestProcessesOfAContainer(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & echo; wait")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, pid := range descendants(cmd.Process.Pid) {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		_ = cmd.Wait()
	}()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c := engine.Container{Container: workload.Container{PID: cmd.Process.Pid}}
	if got := processes(c); len(got) != 2 || got[0] != cmd.Process.Pid {
		t.Errorf("processes of one without a cgroup: %v, want the shell %d and its child", got, cmd.Process.Pid)
	}
	if got := processes(engine.Container{}); got != nil {
		t.Errorf("processes of none: %v", got)
	}
}

func TestInherited(t *testing.T) {
	for env, want := range map[string]bool{"LISTEN_FDS=1": true, "LISTEN_FDS=0": false, "LISTEN_FDS=": false, "X=LISTEN_FDS=1": false} {
		cmd := exec.Command("cat")
		cmd.Env = []string{"A=b", env}
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
		// Its environment is there some time after exec has closed our descriptors: before it answers, in any case.
		_, err = in.Write([]byte("x"))
		if _, unread := out.Read(make([]byte, 1)); err != nil || unread != nil {
			t.Fatal(err, unread)
		}
		if got := inherited(cmd.Process.Pid); got != want {
			t.Errorf("%s: %v", env, got)
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if inherited(1 << 30) {
		t.Error("of nobody")
	}
}

func TestCommandIsTold(t *testing.T) {
	for _, tt := range []struct{ command, want string }{
		{`test "$WHITTLE_SUCCESSOR" = the-id`, ""},
		{`echo "$WHITTLE_SUCCESSOR"; exit 4`, "the command: exit status 4: the-id"},
	} {
		if why, err := runCommand(t.Context(), tt.command, "the-id"); err != nil || why != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.command, why, err, tt.want)
		}
	}
}

// What a command started ends with it when it takes too long: it is asked many times.
func TestCommandLeavesNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := runCommand(ctx, "sleep 1000 & echo $! >"+name+".new && mv "+name+".new "+name+"; wait", "the-id")
		done <- err
	}()
	var pid int
	for pid == 0 {
		if text, err := os.ReadFile(name); err == nil {
			pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cancel()
	<-done
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000); err != nil || n != 1 {
		t.Errorf("what the command started lives on: %d, %v", n, err)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestMissingPorts(t *testing.T) {
	ports := func(all ...string) (list []netip.AddrPort) {
		for _, a := range all {
			list = append(list, netip.MustParseAddrPort(a))
		}
		return list
	}
	for _, tt := range []struct {
		name      string
		kept      bool
		want, has []string
		missing   int
	}{
		{"the same", true, []string{"0.0.0.0:80", "[::]:80"}, []string{"[::]:80", "0.0.0.0:80"}, 0},
		{"one is not there", true, []string{"0.0.0.0:80", "0.0.0.0:81"}, []string{"0.0.0.0:80"}, 1},
		{"another address in a network that stays", true, []string{"127.0.0.1:80"}, []string{"127.0.0.2:80"}, 1},
		{"another address in one that does not", false, []string{"10.0.0.2:80"}, []string{"10.0.0.3:80"}, 0},
		{"another port", false, []string{"10.0.0.2:80"}, []string{"10.0.0.2:81"}, 1},
	} {
		p := &passage{journal: &journal{head: header{NetNS: tt.kept, Plan: Plan{Ports: ports(tt.want...)}}}}
		if got := p.missing(ports(tt.has...)); len(got) != tt.missing {
			t.Errorf("%s: missing %v, want %s", tt.name, got, strconv.Itoa(tt.missing))
		}
	}
}

// What a step does is known for each of each strategy, and said to who watches.
func TestStepsHaveDeeds(t *testing.T) {
	for _, s := range Strategies {
		for _, u := range []*units.Unit{nil, {Name: "web.service"}} {
			if s == Socket && u == nil || s == Overlap && u != nil {
				continue // there is no such thing
			}
			c := choice{b: blueprint(nil), f: Facts{Listeners: []netip.AddrPort{{}}, Inits: true, Unit: u}, r: Request{Changes: engine.Changes{Seccomp: "x"}}}
			steps := c.steps(s)
			p := &passage{journal: &journal{head: header{Plan: Plan{Strategy: s}}}}
			for _, step := range steps {
				if p.does(step) == nil {
					t.Errorf("%s of %s does nothing", step, s)
				}
			}
			turn := slices.Index(steps, StepTurn)
			if turn < 0 || slices.Index(steps, StepStop) > turn || slices.Index(steps, StepRestart) > turn || (u != nil) != slices.Contains(steps, StepRestart) {
				t.Errorf("steps of %s: %v", s, steps)
			}
		}
	}
}
