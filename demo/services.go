// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed"
)

// service is one of the three: the distribution's package in an image, with a configuration and data of the demo's.
type service struct {
	name     string
	packages testbed.Debian
	config   image.Config
	port     string
	mounts   []string // SOURCE:TARGET
	answers  func(context.Context, *service) error
	work     func(context.Context, *service) (requests int, err error) // a second or so of load
	jobs     func(context.Context, *service) error                     // what an operator does now and then

	load *load
}

// leftOut is what PostgreSQL has for compiling queries: most of its size, and not used for short ones.
var leftOut = regexp.MustCompile(`llvmjit|/bitcode/|libLLVM|libz3|^usr/lib/x86_64-linux-gnu/perl`)

// files of the service's image.
func (s *service) files(ctx context.Context) ([]image.File, error) {
	all, err := s.packages.Files(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(f image.File) bool { return leftOut.MatchString(f.Path) })
	program, err := attacker(native(), attempts)
	if err != nil {
		return nil, err
	}
	return append(all, image.Data("usr/bin/attack", 0o755, program)), nil
}

func (s *service) image() string { return "localhost/" + s.name + ":demo" }

// build the image and load it.
func (d *demo) build(ctx context.Context, s *service) error {
	files, err := s.files(ctx)
	if err != nil {
		return err
	}
	archive := d.path(s.name + ".tar")
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	s.config.Name = s.image()
	if err := errors.Join(image.Write(w, s.config, files), w.Flush()); err != nil {
		return err
	}
	_, err = d.env.Run(ctx, "load", "-q", "-i", archive)
	return errors.Join(err, os.Remove(archive))
}

// describe the three services.
func (d *demo) describe() error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	redis := &service{
		name: "redis", packages: testbed.Debian{Packages: []string{"redis-server"}, Follow: regexp.MustCompile("^redis")},
		answers: pingRedis, work: workRedis, jobs: jobsRedis,
	}
	redis.config.Entrypoint = []string{"/usr/bin/redis-server"}
	redis.config.Cmd = []string{"/etc/demo.conf"}
	nginx := &service{
		name: "nginx", packages: testbed.Debian{Packages: []string{"nginx-light"}, Follow: regexp.MustCompile("nginx")},
		answers: getNginx, work: workNginx,
	}
	nginx.config.Entrypoint = []string{"/usr/sbin/nginx"}
	nginx.config.StopSignal = "SIGQUIT" // as nginx's own image has it: requests that are under way are finished
	postgres := &service{
		name: "postgres", packages: testbed.Debian{
			Packages: []string{"postgresql-" + filepath.Base(filepath.Dir(bin)), "tzdata", "dash"}, Follow: regexp.MustCompile("^libpq"),
		},
		answers: selectOne, work: workPostgres, jobs: jobsPostgres,
	}
	postgres.config.Entrypoint = []string{filepath.Join(bin, "postgres")}
	postgres.config.Cmd = []string{"-D", "/data"}
	postgres.config.User = "postgres"
	d.services = []*service{redis, nginx, postgres}
	for _, s := range d.services {
		if s.port, err = freePort(); err != nil {
			return err
		}
	}
	return d.configure(redis, nginx)
}

// configure what is configured by a file. The port is in there and not on the command line, which is part of what a workload is.
func (d *demo) configure(redis, nginx *service) error {
	for _, f := range []struct {
		s            *service
		target, text string
	}{
		{redis, "/etc/demo.conf", "port %s\nbind 127.0.0.1\ndir /data\nsave 3600 1\n"},
		{nginx, "/etc/nginx/nginx.conf", `user www-data;
worker_processes 2;
daemon off;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 512; }
http {
	access_log /dev/null;
	server { listen 127.0.0.1:%s; root /usr/share/nginx/html; }
}
`},
	} {
		file := d.path(f.s.name + ".conf")
		if err := os.WriteFile(file, fmt.Appendf(nil, f.text, f.s.port), 0o644); err != nil {
			return err
		}
		f.s.mounts = append(f.s.mounts, file+":"+f.target+":ro")
	}
	data := d.path("redis-data")
	redis.mounts = append(redis.mounts, data+":/data")
	return os.Mkdir(data, 0o700)
}

// seed the services with data, from lives that nobody looks at: booting without and with data are two things.
func (d *demo) seed(ctx context.Context) error {
	redis, postgres := d.services[0], d.services[2]
	data := d.path("postgres-data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	owner, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(owner.Uid) // of this system: a number
	gid, _ := strconv.Atoi(owner.Gid)
	if err := os.Chown(data, uid, gid); err != nil {
		return err
	}
	bin := filepath.Dir(postgres.config.Entrypoint[0])
	postgres.mounts = []string{data + ":/data"}
	if _, err := d.env.Run(ctx, d.unhooked("run", "--rm", "-v", data+":/data", "--entrypoint", filepath.Join(bin, "initdb"), postgres.image(),
		"-D", "/data", "-A", "trust", "--locale=C", "--encoding=UTF8", "--no-sync")...); err != nil {
		return err
	}
	conf, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer conf.Close()
	// Autovacuum once a minute would be seen in one of two short runs, and not in the other.
	if _, err := fmt.Fprintf(conf, "port = %s\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '/tmp'\njit = off\nautovacuum_naptime = 3s\n",
		postgres.port); err != nil {
		return err
	}
	for _, s := range []*service{redis, postgres} {
		if err := d.start(ctx, s, s.name, false); err != nil {
			return err
		}
	}
	if _, err := output(ctx, filepath.Join(bin, "pgbench"), postgres.client("-i", "-q", "-s", "1")...); err != nil {
		return err
	}
	if _, err := redis.cli(ctx, "set", "kept", "1"); err != nil {
		return err
	}
	// No agent runs yet: nothing is learned from what is tried here.
	pid, err := d.pidOf(ctx, redis.name)
	if err != nil {
		return err
	}
	if d.before, err = reached(pid); err != nil {
		return err
	}
	for _, s := range []*service{redis, postgres} {
		if err := d.remove(ctx, s.name); err != nil {
			return err
		}
	}
	return nil
}

// unhooked Podman, for containers that are nobody's business.
func (d *demo) unhooked(args ...string) []string {
	return append([]string{"--hooks-dir", d.path("no-hooks")}, args...)
}

// start a service and wait until it answers.
func (d *demo) start(ctx context.Context, s *service, name string, hooks bool) error {
	args := []string{"run", "-d", "--name", name, "--network", "host"}
	if !hooks {
		args = d.unhooked(args...)
	}
	for _, m := range s.mounts {
		args = append(args, "-v", m)
	}
	if _, err := d.env.Run(ctx, append(args, s.image())...); err != nil {
		return err
	}
	err := until(ctx, readyIn, name+" answers", func() bool { return s.answers(ctx, s) == nil })
	if err != nil {
		logs, _ := command(ctx, d.env.Podman(), "logs", "--tail", "20", name).CombinedOutput()
		return fmt.Errorf("%w: %s", err, logs)
	}
	return nil
}

// remove a container when it has stopped in good order.
func (d *demo) remove(ctx context.Context, name string) error {
	if _, err := d.env.Run(ctx, "stop", name); err != nil {
		return err
	}
	code, err := d.env.Run(ctx, "inspect", "--format", "{{.State.ExitCode}}", name)
	if err != nil {
		return err
	}
	if code != "0" {
		logs, _ := command(ctx, d.env.Podman(), "logs", "--tail", "20", name).CombinedOutput()
		return fmt.Errorf("%s ended with status %s after SIGTERM: %s", name, code, logs)
	}
	_, err = d.env.Run(ctx, "rm", name)
	return err
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

// postgresBin is where Debian puts the programs of the newest PostgreSQL that is installed.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no PostgreSQL is installed: %w", errors.Join(err, errors.New("apt-get install postgresql")))
	}
	slices.SortFunc(found, func(a, b string) int { return versionOf(a) - versionOf(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

func versionOf(program string) int {
	n, _ := strconv.Atoi(strings.Split(program, "/")[4])
	return n
}
