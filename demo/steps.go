// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed"
)

const imageName = "localhost/redis:demo"

// prepare a private Podman, an image of the installed Redis, and the agent.
func (d *demo) prepare(ctx context.Context) (err error) {
	d.say("A private Podman, an image of the installed Redis, and the agent")
	if d.env, err = testbed.Up(ctx, d.path("podman"), ""); err != nil {
		return err
	}
	if err := d.writeImage(ctx); err != nil {
		return err
	}
	if _, err := d.env.Run(ctx, "load", "-q", "-i", d.path("redis.tar")); err != nil {
		return err
	}
	log, err := os.Create(d.path("agent.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// Not CommandContext: at Ctrl-C the agent ends last, and in order.
	agent := command(context.Background(), d.whittle, "agent", "--socket", d.path("whittle.sock"), "--state", d.path("state"),
		"--podman", "", "--hooks-dir", d.env.HooksDir())
	agent.Stdout, agent.Stderr = log, log
	if err := agent.Start(); err != nil {
		return err
	}
	d.agent, d.client = agent, api.NewClient(d.path("whittle.sock"))
	return until(ctx, 15*time.Second, "the agent answers", func() bool {
		_, err := d.client.Status(ctx)
		return err == nil
	})
}

func (d *demo) writeImage(ctx context.Context) error {
	redis := testbed.Debian{Packages: []string{"redis-server"}, Follow: regexp.MustCompile("^redis")}
	files, err := redis.Files(ctx)
	if err != nil {
		return err
	}
	program, err := attacker(native(), attempts)
	if err != nil {
		return err
	}
	files = append(files, image.Data("usr/bin/attack", 0o755, program))
	f, err := os.Create(d.path("redis.tar"))
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	config := image.Config{Name: imageName}
	config.Entrypoint = []string{"/usr/bin/redis-server"}
	return errors.Join(image.Write(w, config, files), w.Flush())
}

// start a Redis and wait until it answers.
func (d *demo) start(ctx context.Context, name string, hooks bool, options ...string) (port string, err error) {
	if port, err = freePort(); err != nil {
		return "", err
	}
	var args []string
	if !hooks {
		args = append(args, "--hooks-dir", d.path("no-hooks"))
		if err := os.MkdirAll(d.path("no-hooks"), 0o755); err != nil {
			return "", err
		}
	}
	args = append(args, "run", "-d", "--name", name, "--network", "host")
	args = append(args, options...)
	// The port is not part of the command line: the same workload runs again on another one.
	config := d.path(name + ".conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir /tmp\nsave \"\"\n", port)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", err
	}
	args = append(args, "-v", config+":/etc/demo.conf:ro", imageName, "/etc/demo.conf")
	if _, err := d.env.Run(ctx, args...); err != nil {
		return "", err
	}
	return port, until(ctx, 15*time.Second, name+" answers", func() bool {
		out, _ := command(ctx, "redis-cli", "-p", port, "ping").Output()
		return strings.TrimSpace(string(out)) == "PONG"
	})
}

// learn the container while it serves, and show how that goes.
func (d *demo) learn(ctx context.Context) error {
	d.say("An unmodified Redis under Podman's default profile, with load from the first moment")
	port, err := d.start(ctx, "redis", true)
	if err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.load(loading, port)
	}()
	err = d.watch(ctx)
	stop()
	<-done
	if err != nil {
		return err
	}
	d.say("It stops: podman stop")
	if _, err := d.env.Run(ctx, "stop", "redis"); err != nil {
		return err
	}
	return until(ctx, 20*time.Second, "the agent has stored what it learned", func() bool {
		ended, err := d.client.Events(ctx, api.EventQuery{Kind: "stop", Limit: 1})
		return err == nil && len(ended) == 1
	})
}

// load is redis-benchmark, again and again, and an operator's questions in between.
func (d *demo) load(ctx context.Context, port string) {
	for ctx.Err() == nil {
		command(ctx, "redis-benchmark", "-p", port, "-q", "-n", "3000", "-c", "20").Run()
		for _, question := range []string{"info", "dbsize", "slowlog get", "client list", "config get maxmemory", "bgsave"} {
			command(ctx, "redis-cli", append([]string{"-p", port}, strings.Fields(question)...)...).Run()
		}
	}
}

// watch prints a line a second until learning has settled.
func (d *demo) watch(ctx context.Context) error {
	fmt.Fprintln(d.out, "                      an unseen call is in")
	fmt.Fprintf(d.out, "%6s  %-6s  %5s  %-13s  %-13s\n", "TIME", "PHASE", "CALLS", "NEXT BURST", "NEXT EPOCH")
	var phase, last string
	begin := time.Now()
	for {
		s, err := d.client.Status(ctx)
		if err != nil {
			return err
		}
		for _, c := range s.Containers {
			note := ""
			if c.Phase.String() != phase && c.BootEnd > 0 && phase != "" {
				note = fmt.Sprintf("◀ booting ended %.3f s after the first call", c.BootEnd.Seconds())
			}
			phase = c.Phase.String()
			line := fmt.Sprintf("%-6s  %5d  p ≤ %-9.2g  p ≤ %-9.2g", phase, c.Distinct, c.Settled.PUnseen, c.Settled.PUnseenEpoch)
			if c.Settled.Settled {
				note = "◀ settled"
			}
			if c.Distinct > 0 && line != last || note != "" {
				text := fmt.Sprintf("%5.0fs  %s  %s", time.Since(begin).Seconds(), line, note)
				fmt.Fprintln(d.out, strings.TrimRight(text, " "))
			}
			last = line
			if c.Settled.Settled {
				fmt.Fprintln(d.out, c.Settled.Reason)
				return nil
			}
		}
		if time.Since(begin) > 2*time.Minute {
			return errors.New("learning has not settled within two minutes")
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// freePort on loopback, at this moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// until something holds, which is looked at ten times a second.
func until(ctx context.Context, limit time.Duration, what string, holds func() bool) error {
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for this: %s", limit, what)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
