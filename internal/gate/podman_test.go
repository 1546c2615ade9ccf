// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// engineHost is a host with a Podman that has its bridges and its address translation there.
type engineHost struct {
	host
	env *testbed.Env
}

func (e engineHost) podman(t *testing.T, args ...string) string {
	t.Helper()
	var out []byte
	err := e.do(func() (err error) {
		out, err = e.env.Command(context.Background(), args...).Output()
		return err
	})
	if err != nil {
		said := ""
		if exit, ok := err.(*exec.ExitError); ok {
			said = string(exit.Stderr)
		}
		t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return strings.TrimSpace(string(out))
}

// get what a service says of itself by HTTP, in a connection of its own.
func (n *netns) get(ctx context.Context, address string) (string, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	transport.DialContext = func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = n.do(func() error {
			c, err = (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/who", nil)
	if err != nil {
		return "", err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return strings.TrimSpace(string(body)), err
}

// A real engine's container with a published port: while there is none, neither the engine's own sockets on the port
// nor the kernel answer.
func TestPodman(t *testing.T) {
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "busybox", "nft")
	e := engineHost{newHost(t), bedtest.Up(t, "")}
	bedtest.LoadBusybox(t, e.env)
	create := func(name string) {
		e.podman(t, "create", "--name", name, "-p", "8080:80", bedtest.Busybox,
			"/bin/sh", "-c", "echo "+name+" > /tmp/who; exec busybox httpd -f -p 80 -h /tmp")
	}
	// From the namespace that has their network: their addresses are taken in a file that all Podmans share.
	t.Cleanup(func() { e.podman(t, "rm", "-f", "-t", "0", "predecessor", "successor", "neighbour") })
	create("predecessor")
	create("successor")
	// Keeps the bridge, as every other container of a real network does.
	e.podman(t, "run", "-d", "--name", "neighbour", bedtest.Busybox, "/bin/busybox", "sleep", "1000")
	e.podman(t, "start", "predecessor")
	ctx := within(t)
	const each = 3
	eventually(t, "the predecessor serves", func() bool {
		who, err := e.client.get(ctx, "10.99.0.1:8080")
		return err == nil && who == "predecessor"
	})
	g := e.shut(t, ctx, attempts(), anywhere(8080))
	e.podman(t, "stop", "-t", "1", "predecessor")
	var visitors crowd
	visitors.run(t, "10.99.0.1:8080", each, func(a string) (string, error) { return e.client.get(ctx, a) })
	visitors.run(t, "10.99.0.1:8080", each, func(a string) (string, error) { return e.get(ctx, a) })
	visitors.run(t, "127.0.0.1:8080", each, func(a string) (string, error) { return e.get(ctx, a) })
	var neighbour string
	visitors.all.Go(func() {
		_ = e.do(func() error { // who served it tells whether it went well
			out, err := e.env.Run(ctx, "exec", "neighbour", "/bin/busybox", "wget", "-q", "-O", "-", "http://10.99.0.1:8080/who")
			neighbour = strings.TrimSpace(out)
			return err
		})
	})
	waitHeld(t, g, 3*each+1)
	e.podman(t, "start", "successor")
	if held, dropped := g.Waited(); held != 3*each+1 || dropped != 0 {
		t.Errorf("Waited() = %d, %d, want %d, 0", held, dropped, 3*each+1)
	}
	eventually(t, "the successor listens", func() bool {
		return strings.Contains(e.podman(t, "exec", "successor", "/bin/busybox", "netstat", "-ltn"), ":80 ")
	})
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	if who := visitors.wait(); who["successor"] != 3*each {
		t.Errorf("served by %v, want %d by the successor", who, 3*each)
	}
	if neighbour != "successor" {
		t.Errorf("the neighbour was served by %q", neighbour)
	}
}
