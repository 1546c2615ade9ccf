// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// steer is a process that has a Line, up to the state that it is to be killed in.
func (s service) steer() error {
	ns, err := OpenNetNS(s.PID)
	if err != nil {
		return err
	}
	first, _, err := ListenersOf([]int{s.PID}, ns)
	if err != nil {
		return err
	}
	line, err := Form(ns, first)
	if err != nil {
		return err
	}
	if strings.HasPrefix(s.Steerer, "held") {
		if err := line.Hold(); err != nil {
			return err
		}
	}
	if _, err := Share(ns, first.Ports()); err != nil {
		return err
	}
	fmt.Println("ready")
	// The successor's pid, where one is needed.
	text, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return err
	}
	next, _, err := ListenersOf([]int{pid}, ns)
	if err != nil {
		return err
	}
	if err := line.Admit(next); err != nil {
		return err
	}
	if s.Steerer == "turned" {
		if err := line.Turn(); err != nil {
			return err
		}
	}
	fmt.Println("done")
	select {}
}

// steerer of a service.
func steerer(t *testing.T, ns *NetNS, of *process, state string) (*process, io.Writer) {
	t.Helper()
	p := command(t, service{Steerer: state, PID: of.Process.Pid})
	in, err := p.StdinPipe()
	must(t, err)
	t.Cleanup(func() { in.Close() })
	p.run(ns)
	p.expect("ready")
	return p, in
}

// asked is a request under way.
func asked(ns *NetNS, at string) chan string {
	out := make(chan string, 1)
	go ns.Do(func() error {
		who, err := request(at)
		if err != nil {
			who = err.Error()
		}
		out <- who
		return nil
	})
	return out
}

func TestKilled(t *testing.T) {
	const at = "127.0.0.1:8123"
	for _, style := range []string{"edge", "go"} {
		for _, tt := range []struct {
			state     string
			successor bool   // one was admitted when it is killed
			want      string // who answers then; "" both may
		}{
			{"formed", false, "s0"},
			{"held", false, "s0"},
			{"admitted", true, "s0"},
			{"held-admitted", true, ""},
			{"turned", true, "s1"},
		} {
			t.Run(style+"/"+tt.state, func(t *testing.T) {
				ns := space(t)
				kind := service{Style: style, At: []string{at}}
				kind.Name = "s0"
				first := start(t, ns, kind)
				killed, in := steerer(t, ns, first, tt.state)
				var second *process
				if tt.successor {
					kind.Name = "s1"
					second = start(t, ns, kind)
					fmt.Fprintln(in, second.Process.Pid)
					killed.expect("done")
				}
				held := []chan string{}
				for range 5 {
					held = append(held, asked(ns, at))
				}
				if strings.HasPrefix(tt.state, "held") {
					time.Sleep(50 * time.Millisecond) // they are in the steerer's queue, or will be elsewhere: both is right
				}
				killed.end(unix.SIGKILL)

				// A second listener is not let in any more.
				kind.Name = "intruder"
				intruder := launch(t, ns, kind)
				if line, err := intruder.out.ReadString('\n'); err == nil {
					t.Errorf("a second service could still bind: %q", line)
				}

				for _, p := range []*process{first, second} {
					if p != nil {
						left := take(t, ns, p)
						must(t, Settle(ns, left))
						must(t, left.Close())
					}
				}
				for _, h := range held {
					if got := <-h; got != tt.want && (tt.want != "" || got != "s0" && got != "s1") {
						t.Errorf("a connection from before the kill was answered by %q, want %q", got, tt.want)
					}
				}
				moveOn(t, ns, first, second, kind)
			})
		}
	}
}

// moveOn ends one of two, if there are two, and moves the service from the other.
func moveOn(t *testing.T, ns *NetNS, first, second *process, kind service) {
	t.Helper()
	if second != nil {
		first.end(unix.SIGTERM)
		first = second
	}
	l := clients(t, ns, 3, kind.At...)
	defer l.end()
	m := &mover{t: t, ns: ns, kind: kind, load: l}
	m.hold(m.overlap(first, 2), 3)
}
