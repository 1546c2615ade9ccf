// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
	"golang.org/x/sys/unix"
)

// serveThreads is a server with 45 threads and more that echoes. It prints its address.
func serveThreads() {
	for range 48 {
		go func() {
			runtime.LockOSThread()
			for {
				nap(3 * time.Millisecond)
			}
		}()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

func startServer(t testing.TB) (pid int, address string) {
	t.Helper()
	c := &child{Cmd: exec.Command(self(t))}
	c.Env = append(os.Environ(), "INJECT_TEST_SERVER=1")
	c.Stderr = os.Stderr
	c.begin(t)
	return c.Process.Pid, c.line(t)
}

// load on a server until the result is called, which says how many requests were made and how many failed.
func load(address string) func() (requests, failures int64) {
	var wg sync.WaitGroup
	var ok, bad atomic.Int64
	stop := make(chan struct{})
	once := func() error {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		var got [4]byte
		for range 20 {
			if _, err := c.Write([]byte("ping")); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, got[:]); err != nil {
				return err
			}
			ok.Add(1)
		}
		return nil
	}
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if once() != nil {
					bad.Add(1)
				}
			}
		})
	}
	return func() (int64, int64) {
		close(stop)
		wg.Wait()
		return ok.Load(), bad.Load()
	}
}

// A busy server with many threads is attached to 20 times and loses no connection; each thread has every filter.
func TestServerUnderLoad(t *testing.T) {
	testenv.NeedRoot(t)
	pid, address := startServer(t)
	end := load(address)
	var pauses []time.Duration
	for i := range uint32(20) {
		r := inject(t, Request{PIDs: []int{pid}, Program: program(t, unix.SECCOMP_RET_ERRNO|1, "mkdir", 100+i)})
		pauses = append(pauses, r.Processes[0].Pause)
	}
	requests, failures := end()
	slices.Sort(pauses)
	t.Logf("%d requests, pauses: median %v, longest %v", requests, pauses[10], pauses[19])
	if failures != 0 || requests == 0 {
		t.Errorf("%d requests, %d failures", requests, failures)
	}
	tids, err := numbersIn(procPath(pid, "/task"), maxThreads)
	if err != nil || len(tids) < 45 {
		t.Fatalf("%d threads, %v; want 45 and more", len(tids), err)
	}
	for _, tid := range tids {
		if s, err := readStatus(taskPath(pid, tid, "/status")); err != nil || s.filters != 20 {
			t.Errorf("thread %d: got %d filters, %v; want 20", tid, s.filters, err)
		}
	}
}

// BenchmarkAttach reports how long a thread stands still, which is not the time of the whole operation.
func BenchmarkAttach(b *testing.B) {
	testenv.NeedRoot(b)
	for _, name := range []string{"idle", "45 threads", "45 threads under load"} {
		b.Run(name, func(b *testing.B) {
			var pid int
			address := ""
			if name == "idle" {
				pid = start(b, "/bin/sleep", "1000").Process.Pid
			} else {
				pid, address = startServer(b)
			}
			if name == "45 threads under load" {
				defer load(address)()
			}
			var pauses []time.Duration
			for i := 0; b.Loop(); i++ {
				r := inject(b, Request{PIDs: []int{pid}, Program: program(b, unix.SECCOMP_RET_ERRNO|1, "mkdir", uint32(i))})
				pauses = append(pauses, r.Processes[0].Pause)
			}
			slices.Sort(pauses)
			b.ReportMetric(float64(pauses[len(pauses)/2].Microseconds()), "µs-pause-median")
			b.ReportMetric(float64(pauses[len(pauses)-1].Microseconds()), "µs-pause-max")
		})
	}
}
