// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// dialect of a service that accepts connections before it can serve, and says so. Only an answer that means "not yet" keeps
// it from being ready: a service that wants a password or TLS answers something else, or nothing.
type dialect struct {
	name     string
	commands []string // names of its processes
	question []byte
	notYet   func(answer []byte) bool
}

var dialects = []dialect{
	{
		name: "Redis", commands: []string{"redis-server", "valkey-server"}, question: []byte("PING\r\n"),
		notYet: func(a []byte) bool { return bytes.HasPrefix(a, []byte("-LOADING")) },
	},
	{
		// A startup message of protocol 3.0 for a user that need not exist. While it starts up or recovers the answer is an
		// error of class 57P03 (cannot_connect_now), which is how pg_isready tells, too.
		name: "PostgreSQL", commands: []string{"postgres", "postmaster"},
		question: []byte("\x00\x00\x00\x16" + "\x00\x03\x00\x00" + "user\x00whittle\x00\x00"),
		notYet:   func(a []byte) bool { return len(a) > 0 && a[0] == 'E' && bytes.Contains(a, []byte("C57P03\x00")) },
	},
}

func dialectOf(commands []string) *dialect {
	i := slices.IndexFunc(dialects, func(d dialect) bool {
		return slices.ContainsFunc(d.commands, func(c string) bool { return slices.Contains(commands, c) })
	})
	if i < 0 {
		return nil
	}
	return &dialects[i]
}

// ask over a connection that was accepted. The answer ends where the service pauses.
func (d *dialect) ask(ctx context.Context, c net.Conn) ([]byte, error) {
	const long = 2 * time.Second
	end := time.Now().Add(long)
	if at, ok := ctx.Deadline(); ok && at.Before(end) {
		end = at
	}
	if err := c.SetDeadline(end); err != nil {
		return nil, err
	}
	if _, err := c.Write(d.question); err != nil {
		return nil, err
	}
	answer := make([]byte, 1024)
	n, err := io.ReadAtLeast(c, answer, 1)
	return answer[:n], err
}

// commands are the names of the successor's processes, as the kernel has them.
func (p *passage) commands() (names []string) {
	for _, pid := range processes(p.serving) {
		if text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm"); err == nil {
			names = append(names, strings.TrimSpace(string(text)))
		}
	}
	return names
}
