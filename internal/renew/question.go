// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/internal/traffic"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Ways of asking whether the successor can serve.

// oneQuestion may take so long before it is asked again.
const oneQuestion = 5 * time.Second

func runCommand(ctx context.Context, command, id string) (why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*oneQuestion)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), "WHITTLE_SUCCESSOR="+id)
	cmd.WaitDelay = time.Second // something that it started may hold its output open
	// What it started ends with it: it is asked again, and those that hang would pile up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Sprintf("the command: %v: %s", err, workload.Printable(strings.TrimSpace(string(out)), 300)), nil
	}
	return "", err
}

func (p *passage) askHTTP(ctx context.Context, r Ready) (why string, err error) {
	port, err := p.port(r.Port)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, oneQuestion)
	defer cancel()
	transport := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx, port) },
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost:"+strconv.Itoa(int(port.Port()))+r.HTTP, nil)
	if err != nil {
		return "", err
	}
	q.Header.Set("User-Agent", "whittle")
	answer, err := client.Do(q)
	if err != nil {
		return err.Error(), nil
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that it is not reset under the service
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Sprintf("%s is answered with %d", r.HTTP, answer.StatusCode), nil
	}
	return "", nil
}

// maxKnocks: a service with more ports than this is asked at some of them.
const maxKnocks = 16

// knock at each port, and see that the connections are accepted. At the port of a protocol that is known a question is asked.
func (p *passage) knock(ctx context.Context) (why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, oneQuestion)
	defer cancel()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close() // nothing was written that could be lost
		}
	}()
	ports := p.head.Plan.Ports
	for _, port := range ports[:min(len(ports), maxKnocks)] {
		c, err := p.dial(ctx, port)
		if err != nil {
			return fmt.Sprintf("a connection to %v: %v", port, err), nil
		}
		conns = append(conns, c)
	}
	if len(conns) == 0 {
		return "", nil
	}
	if why, err := p.accepted(ctx); why != "" || err != nil {
		return why, err
	}
	return p.speak(ctx, ports, conns)
}

// accepted tells whether the successor took what is in its queues. Where others can reach it already, there is always
// something in them: then it is enough that it was connected, or, where systemd listens before the successor does, that
// something was taken.
func (p *passage) accepted(ctx context.Context) (why string, err error) {
	shared := p.head.Plan.Strategy == Socket
	if p.line == nil && p.gate == nil && !shared {
		return "", nil
	}
	most := 0
	for {
		n, err := traffic.Waiting(p.next)
		if err != nil || n == 0 || shared && n < most {
			return "", err
		}
		most = max(most, n)
		if ctx.Err() != nil {
			return "it accepts no connections", nil
		}
		pause(ctx, glance)
	}
}

// speak the protocol of a service that is known to listen before it can serve.
func (p *passage) speak(ctx context.Context, ports []netip.AddrPort, conns []net.Conn) (why string, err error) {
	d := dialectOf(p.commands())
	if d == nil {
		return "", nil
	}
	for i, c := range conns {
		if r := p.head.Request.Ready.Port; r != 0 && ports[i].Port() != r {
			continue
		}
		answer, err := d.ask(ctx, c)
		if err == nil && d.notYet(answer) {
			return d.name + " says that it is not ready", nil
		}
	}
	return "", nil
}
