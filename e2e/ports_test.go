// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
)

var ports struct {
	sync.Mutex
	next int
}

// freePort that no other test gets, and that stays free while the test's service is not up: the kernel gives ports of its own
// choice to whoever connects, as loads do by the thousand, and keeps them for a minute after.
func freePort(t *testing.T) string {
	t.Helper()
	const lowest = 10_000
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	var chosen int // the lowest that the kernel chooses
	if _, err := fmt.Sscan(string(text), &chosen); err != nil {
		t.Fatalf("the kernel chooses ports from %q: %v", text, err)
	}
	ports.Lock()
	defer ports.Unlock()
	for range chosen - lowest {
		port := lowest + (os.Getpid()+ports.next)%(chosen-lowest) // processes of this test begin at different ones
		ports.next++
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return strconv.Itoa(port)
		}
	}
	t.Fatalf("no port from %d to %d, where the kernel begins to choose, is free", lowest, chosen)
	return ""
}
