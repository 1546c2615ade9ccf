// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is clients that make a new connection for each request.
type load struct {
	t    *testing.T
	stop chan struct{}
	wg   sync.WaitGroup

	failed atomic.Int64
	mu     sync.Mutex
	by     map[string]int // answers, by who gave them
}

// clients each of which asks at one address of at, until end.
func clients(t *testing.T, ns *NetNS, n int, at ...string) *load {
	l := &load{t: t, stop: make(chan struct{}), by: map[string]int{}}
	for i := range n {
		l.wg.Go(func() {
			ns.Do(func() error {
				l.ask(at[i%len(at)])
				return nil
			})
		})
	}
	return l
}

func (l *load) ask(at string) {
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		default:
		}
		who, err := request(at)
		if err != nil {
			l.failed.Add(1)
			l.t.Errorf("request at %s: %v", at, err)
			return
		}
		l.mu.Lock()
		l.by[who]++
		l.mu.Unlock()
	}
}

// request in the thread's namespace: who answered.
func request(at string) (string, error) {
	c, err := net.DialTimeout("tcp", at, 20*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return converse(c)
}

func converse(c net.Conn) (string, error) {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return "", err
	}
	who, ok := strings.CutSuffix(string(answer), " hello\n")
	if !ok {
		return "", fmt.Errorf("the answer is %q", answer)
	}
	return who, nil
}

// answers of one service so far.
func (l *load) answers(who string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[who]
}

// served waits until a service has answered n requests more.
func (l *load) served(who string, n int) {
	l.t.Helper()
	want := l.answers(who) + n
	for deadline := time.Now().Add(time.Minute); l.answers(who) < want; time.Sleep(time.Millisecond) {
		if l.failed.Load() > 0 || time.Now().After(deadline) {
			l.t.Fatalf("%s answered %d requests, want %d", who, l.answers(who), want)
		}
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}
