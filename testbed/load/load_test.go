// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// line is a request of one line, answered with the same.
func line(conn net.Conn, r *bufio.Reader, n int) error {
	sent := fmt.Sprintf("%d\n", n)
	if _, err := io.WriteString(conn, sent); err != nil {
		return err
	}
	got, err := r.ReadString('\n')
	if err == nil && got != sent {
		err = fmt.Errorf("%q is answered %q", sent, got)
	}
	return err
}

// server answers each connection with a function, until the test ends.
func server(t *testing.T, answer func(conn net.Conn, r *bufio.Reader)) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				answer(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return Target{Addr: l.Addr().String()}
}

// echo lines, so many for each connection; 0 is any number.
func echo(lines int) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		for n := 0; lines == 0 || n < lines; n++ {
			text, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	}
}

// closed is a port where nobody listens.
func closed(t *testing.T) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return Target{Addr: l.Addr().String()}
}

func TestCounts(t *testing.T) {
	hangUp := func(_ net.Conn, r *bufio.Reader) { _, _ = r.ReadString('\n') }
	silent := func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }
	wrong := func(conn net.Conn, r *bufio.Reader) { _, _ = r.ReadString('\n'); _, _ = io.WriteString(conn, "no\n") }
	for _, test := range []struct {
		name   string
		target Target
		load   Load
		holds  func(Stats) bool
		want   string
	}{
		{"a connection per request", server(t, echo(1)), Load{Workers: 2, PerConnection: 1},
			func(s Stats) bool {
				return s.Requests > 0 && s.Failed == 0 && s.Stale == 0 && s.P50 > 0 && s.P99 >= s.P50
			}, "answers only"},
		{"a kept connection", server(t, echo(0)), Load{Workers: 2},
			func(s Stats) bool { return s.Requests > 0 && s.Failed == 0 && s.Stale == 0 }, "answers only"},
		{"closed between requests", server(t, echo(3)), Load{},
			func(s Stats) bool { return s.Requests > 3 && s.Failed == 0 && s.Stale > 0 }, "stale connections, and no failure"},
		{"refused", closed(t), Load{}, func(s Stats) bool { return s.Requests == 0 && s.Refused > 0 && s.Refused == s.Failed }, "refused ones only"},
		{"broken off", server(t, hangUp), Load{}, func(s Stats) bool { return s.Requests == 0 && s.Reset > 0 && s.Reset == s.Failed && s.Stale == 0 }, "broken ones only"},
		{"no answer", server(t, silent), Load{Timeout: 50 * time.Millisecond}, func(s Stats) bool { return s.Late > 0 && s.Late == s.Failed }, "late ones only"},
		{"no connection", server(t, echo(1)), Load{Timeout: 1}, func(s Stats) bool { return s.Late > 0 && s.Late == s.Failed }, "late ones only"},
		{"another answer", server(t, wrong), Load{}, func(s Stats) bool { return s.Failed > 0 && s.Reset+s.Late+s.Refused == 0 && len(s.Errors) > 0 }, "failures with their text"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.load.For = 200 * time.Millisecond
			if got := Run(t.Context(), test.target, line, test.load); !test.holds(got) {
				t.Errorf("%v, want %s", got, test.want)
			}
		})
	}
}

// TestHTTP: a server that says that it closes the connection has not broken it off.
func TestHTTP(t *testing.T) {
	for _, test := range []struct {
		name, answer string
		fails        bool
	}{
		{"kept", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"closed", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", false},
		{"cut short", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok", true},
		{"an error", "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nok", true},
		{"no HTTP", "+OK\r\n\r\n", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			target := server(t, func(conn net.Conn, r *bufio.Reader) {
				for {
					for {
						text, err := r.ReadString('\n')
						if err != nil {
							return
						}
						if text == "\r\n" {
							break
						}
					}
					_, _ = io.WriteString(conn, test.answer)
					if strings.Contains(test.answer, "close") {
						return
					}
				}
			})
			got := Run(t.Context(), target, HTTP("/", "ok"), Load{For: 100 * time.Millisecond})
			if got.Stale > 0 || got.Requests > 0 == test.fails || got.Failed > 0 != test.fails {
				t.Errorf("%v; want failures: %v", got, test.fails)
			}
			if err := target.Ask(t.Context(), HTTP("/", "ok")); err != nil != test.fails {
				t.Errorf("once: %v; want a failure: %v", err, test.fails)
			}
		})
	}
}

// TestStopWaits: a request that is under way when the load ends is answered, and counted.
func TestStopWaits(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	target := server(t, func(conn net.Conn, r *bufio.Reader) {
		text, _ := r.ReadString('\n')
		close(asked)
		<-answer
		_, _ = io.WriteString(conn, text)
	})
	running := Start(t.Context(), target, line, Load{})
	<-asked
	time.AfterFunc(20*time.Millisecond, func() { close(answer) })
	if got := running.Stop(); got.Requests != 1 || got.Failed != 0 {
		t.Errorf("%v, want one request", got)
	}
}

// TestLongestGap: while nobody is answered, it grows, whoever asks.
func TestLongestGap(t *testing.T) {
	var slow atomic.Bool
	target := server(t, func(conn net.Conn, r *bufio.Reader) {
		text, _ := r.ReadString('\n')
		if slow.Load() {
			time.Sleep(150 * time.Millisecond)
		}
		_, _ = io.WriteString(conn, text)
	})
	running := Start(t.Context(), target, line, Load{Workers: 3, PerConnection: 1})
	for running.Now().Requests < 20 {
		time.Sleep(time.Millisecond)
	}
	slow.Store(true)
	for running.Now().LongestGap < 140*time.Millisecond {
		time.Sleep(time.Millisecond)
	}
	slow.Store(false)
	if got := running.Stop(); got.LongestGap < 140*time.Millisecond || got.Failed > 0 || got.Max < 150*time.Millisecond {
		t.Errorf("%v, want a gap of 0.15 s and no failure", got)
	}
}

func TestRecord(t *testing.T) {
	var record Record
	good, bad := server(t, echo(1)), closed(t)
	for _, load := range []Load{{PerConnection: 1, For: 50 * time.Millisecond, Record: &record}, {Workers: 2, PerConnection: 1, For: 50 * time.Millisecond, Record: &record}} {
		Run(t.Context(), good, line, load)
	}
	s := Run(t.Context(), bad, line, Load{For: 20 * time.Millisecond, Record: &record})
	all, refused := record.During(time.Time{}, time.Now()), 0
	for _, q := range all {
		if q.Refused() {
			refused++
		} else if q.Err != nil || q.Took() <= 0 {
			t.Errorf("%v", q)
		}
	}
	if refused != s.Refused || refused == 0 || len(all) == refused {
		t.Errorf("of %d requests %d were refused, want %d and others", len(all), refused, s.Refused)
	}
}

func TestDuring(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(1000 + ms)) }
	var r Record
	for _, q := range []Request{
		{at(0), at(10), nil}, {at(5), at(20), nil}, {at(30), at(31), errors.New("no")}, {at(25), at(60), nil}, {at(70), at(80), nil},
	} {
		r.add(q)
	}
	for _, test := range []struct {
		name     string
		from, to int
		n        int
		silence  time.Duration
	}{
		{"all", 0, 80, 5, 40 * time.Millisecond},
		{"before any", -20, -10, 0, 10 * time.Millisecond},
		{"after all", 90, 120, 0, 30 * time.Millisecond},
		{"an end is beyond it", 15, 50, 3, 30 * time.Millisecond},
		{"the last was before its end", 50, 100, 2, 20 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := r.During(at(test.from), at(test.to))
			if silence := Silence(all, at(test.from), at(test.to)); len(all) != test.n || silence != test.silence {
				t.Errorf("%d requests, %v without an answer; want %d and %v", len(all), silence, test.n, test.silence)
			}
		})
	}
}

func TestHistogram(t *testing.T) {
	for v := uint64(0); v < 1<<20; v = v + 1 + v/100 {
		i := bucket(v)
		if top := most(i); top < v || float64(top) > float64(v)*1.04+1 || bucket(top) != i || bucket(top+1) != i+1 {
			t.Fatalf("%d is in bucket %d, which ends at %d", v, i, top)
		}
	}
	if got := bucket(1<<63 + 1<<62); got >= len(counts{}.latencies) {
		t.Errorf("the largest is in bucket %d", got)
	}
	c := newCounts(time.Now())
	for ms := range 100 {
		c.answered(c.began, c.began.Add(time.Duration(ms+1)*time.Millisecond))
	}
	s := c.stats(c.began.Add(time.Second))
	if s.P50 < 50*time.Millisecond || s.P50 > 52*time.Millisecond || s.P99 < 99*time.Millisecond || s.P99 > 103*time.Millisecond {
		t.Errorf("of 1 to 100 ms, the median is %v and the 99th percentile %v", s.P50, s.P99)
	}
	if s.LongestGap != 900*time.Millisecond {
		t.Errorf("the gap until the end is %v, want 900ms", s.LongestGap)
	}
}

// TestNetNS: what listens in another network is found there and only there.
func TestNetNS(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "unshare", "ip")
	holder := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600")
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	if text, err := bufio.NewReader(out).ReadString('\n'); text != "up\n" {
		t.Fatal(text, err)
	}
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	target := Target{NetNS: fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)}
	var l net.Listener
	done := make(chan struct{})
	go func() {
		defer close(done)
		target.inside(func() { l, err = net.Listen("tcp", "127.0.0.1:0") }, func(e error) { err = e })
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			echo(1)(conn, bufio.NewReader(conn))
			conn.Close()
		}
	}()
	target.Addr = l.Addr().String()
	if err := target.Ask(t.Context(), line); err != nil {
		t.Errorf("from its network: %v", err)
	}
	if s := Run(t.Context(), target, line, Load{Workers: 2, For: 50 * time.Millisecond, PerConnection: 1}); s.Requests == 0 || s.Failed > 0 {
		t.Errorf("from its network: %v", s)
	}
	if err := (Target{Addr: target.Addr}).Ask(t.Context(), line); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("from this network: %v, want a refusal", err)
	}
	if s := Run(t.Context(), Target{Addr: target.Addr, NetNS: "/proc/none/ns/net"}, line, Load{}); s.Failed != 1 || !strings.Contains(fmt.Sprint(s.Errors), "network") {
		t.Errorf("from no network: %v", s)
	}
	if now, err := os.Readlink("/proc/thread-self/ns/net"); now != here {
		t.Errorf("this thread is in %s now, and was in %s (%v)", now, here, err)
	}
}
