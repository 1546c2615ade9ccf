// SPDX-License-Identifier: Apache-2.0

package main

import (
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
	"time"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/load"
)

// service that is renewed under load.
type service struct {
	network
	kind     string
	name     string // of its container, and of what else is made for it
	about    string // in the report
	packages testbed.Debian
	files    []image.File
	config   image.Config
	port     string
	mounts   []string // SOURCE:TARGET
	request  func(worker int) load.Talk
	slow     load.Talk // a request that goes on for a second; nil: it drains nothing
	done     *counted
	tool     func(s *service, seconds int) []string // that loads it besides, with a connection for each request
	failed   *regexp.Regexp                         // what the tool says of failures; the group is their number, if any
	kept     func(ctx context.Context) error        // whether every acknowledged write is there
}

func (s *service) target() load.Target { return load.Target{Addr: net.JoinHostPort(s.host, s.port)} }
func (s *service) image() string       { return "localhost/" + s.name + ":renew" }
func (s *service) data() string        { return s.name + "-data" }

// bulky is what PostgreSQL has for compiling queries: most of its size, and not used for short ones.
var bulky = regexp.MustCompile(`llvmjit|/bitcode/|libLLVM|libz3|^usr/lib/x86_64-linux-gnu/perl`)

// build the image and load it.
func (b *bed) build(ctx context.Context, s *service) error {
	var files []image.File
	if len(s.packages.Packages) > 0 {
		var err error
		if files, err = s.packages.Files(ctx); err != nil {
			return err
		}
	}
	files = append(slices.DeleteFunc(files, func(f image.File) bool { return bulky.MatchString(f.Path) }), s.files...)
	archive := filepath.Join(b.dir, s.name+".tar")
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	s.config.Name = s.image()
	if err := errors.Join(image.Write(f, s.config, files), f.Close()); err != nil {
		return err
	}
	_, err = b.env.Run(ctx, "load", "-q", "-i", archive)
	return errors.Join(err, os.Remove(archive))
}

// describe a service in a network, by its kind.
func (b *bed) describe(ctx context.Context, kind string, n network) (*service, error) {
	fill, ok := map[string]func(context.Context, *service) error{
		"nginx": b.nginx, "redis": b.redis, "postgres": b.postgres, "go": b.goServer,
	}[kind]
	if !ok {
		return nil, fmt.Errorf("no service %q", kind)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &service{network: n, kind: kind, name: kind + n.suffix, port: port}
	if err := fill(ctx, s); err != nil {
		return nil, fmt.Errorf("make %s: %w", kind, err)
	}
	return s, nil
}

// always the same request, whoever makes it.
func always(t load.Talk) func(int) load.Talk { return func(int) load.Talk { return t } }

func wrk(s *service, seconds int) []string {
	return []string{"wrk", "-t1", "-c8", "-d" + strconv.Itoa(seconds), "-H", "Connection: close", "http://" + s.target().Addr + "/"}
}

// wrkFailed is what wrk says of failures.
var wrkFailed = regexp.MustCompile(`Socket errors: (.*)|Non-2xx or 3xx responses: (\d+)`)

func (b *bed) nginx(_ context.Context, s *service) error {
	s.about = "Debian's nginx, two workers, no volume; its slow request is limited to 1 s"
	s.packages = testbed.Debian{Packages: []string{"nginx-light"}, Follow: regexp.MustCompile("nginx")}
	s.request, s.slow = always(get("/", "nginx")), get("/slow.bin", "")
	s.tool, s.failed = wrk, wrkFailed
	conf := fmt.Sprintf(`user www-data;
worker_processes 2;
daemon off;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 512; }
http {
	access_log off;
	server {
		listen %s:%s;
		root /usr/share/nginx/html;
		location /slow.bin { limit_rate 100k; }
	}
}
`, s.listen, s.port)
	s.files = []image.File{
		image.Data("etc/nginx/renewal.conf", 0o644, []byte(conf)),
		image.Data("usr/share/nginx/html/slow.bin", 0o644, make([]byte, 100<<10)),
	}
	s.config.Entrypoint = []string{"/usr/sbin/nginx", "-c", "/etc/nginx/renewal.conf"}
	s.config.StopSignal = "SIGQUIT" // as nginx's own image has it: what is under way is finished
	return nil
}

func (b *bed) redis(_ context.Context, s *service) error {
	s.about = "Debian's Redis with 100,000 keys in a volume, saved when it stops; every request increments a key"
	s.packages = testbed.Debian{Packages: []string{"redis-server"}, Follow: regexp.MustCompile("^redis")}
	s.done = &counted{}
	s.request = func(worker int) load.Talk { return increment(s.done, worker) }
	s.tool = func(s *service, _ int) []string {
		return []string{"redis-benchmark", "-h", s.host, "-p", s.port, "-k", "0", "-c", "4", "-n", "100000", "-q", "-t", "set"}
	}
	s.failed = regexp.MustCompile(`(?i)(error.*|could not connect.*)`)
	data := filepath.Join(b.dir, s.data())
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	s.mounts = []string{data + ":/data"}
	s.config.Entrypoint = []string{"/usr/bin/redis-server"}
	s.config.Cmd = []string{"--port", s.port, "--bind", s.listen, "--protected-mode", "no", "--dir", "/data", "--save", "3600 1"}
	s.kept = func(ctx context.Context) error { return b.redisKept(ctx, s) }
	return nil
}

// redisKept compares what each worker was told with what is there.
func (b *bed) redisKept(ctx context.Context, s *service) error {
	for worker := range s.done {
		want := s.done[worker].Load()
		if want == 0 {
			continue
		}
		out, err := output(ctx, "redis-cli", "-h", s.host, "-p", s.port, "get", "worker:"+strconv.Itoa(worker))
		if err != nil {
			return err
		}
		if have, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64); err != nil || have < want {
			return fmt.Errorf("worker %d was told of %d increments, there are %q", worker, want, strings.TrimSpace(out))
		}
	}
	out, err := output(ctx, "redis-cli", "-h", s.host, "-p", s.port, "exists", "filler:1", "filler:99999")
	if err == nil && strings.TrimSpace(out) != "2" {
		err = fmt.Errorf("the keys that were there before are gone: %q", out)
	}
	return err
}

func (b *bed) postgres(ctx context.Context, s *service) error {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return errors.New("no PostgreSQL is installed: apt-get install postgresql")
	}
	bin := filepath.Dir(found[len(found)-1])
	s.about = "Debian's PostgreSQL with pgbench's tables in a volume, stopped by SIGINT (fast); every request inserts a row and commits"
	s.packages = testbed.Debian{
		Packages: []string{"postgresql-" + filepath.Base(filepath.Dir(bin)), "tzdata", "dash"}, Follow: regexp.MustCompile("^libpq"),
	}
	s.done = &counted{}
	s.request = func(worker int) load.Talk { return insert(s.done, worker) }
	s.tool = func(s *service, seconds int) []string {
		return []string{filepath.Join(bin, "pgbench"), "-n", "-C", "-S", "-c", "2", "-T", strconv.Itoa(seconds), "-h", s.host, "-p", s.port, "-U", "postgres", "postgres"}
	}
	s.failed = regexp.MustCompile(`((?:pgbench: )?error: .*)`)
	s.config.Entrypoint = []string{filepath.Join(bin, "postgres")}
	s.config.Cmd = []string{"-D", "/data"}
	s.config.User = "postgres"
	s.config.StopSignal = "SIGINT" // as PostgreSQL's own image has it
	s.kept = func(ctx context.Context) error { return b.postgresKept(ctx, s) }
	return b.makeData(ctx, s, bin)
}

// makeData of PostgreSQL with its own initdb, which needs no running service.
func (b *bed) makeData(ctx context.Context, s *service, bin string) error {
	data := filepath.Join(b.dir, s.data())
	owner, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(owner.Uid) // of this system: a number
	gid, _ := strconv.Atoi(owner.Gid)
	if err := errors.Join(os.Mkdir(data, 0o700), os.Chown(data, uid, gid)); err != nil {
		return err
	}
	s.mounts = []string{data + ":/data"}
	if err := b.build(ctx, s); err != nil {
		return err
	}
	if _, err := b.env.Run(ctx, "run", "--rm", "-v", data+":/data", "--entrypoint", filepath.Join(bin, "initdb"), s.image(),
		"-D", "/data", "-A", "trust", "--locale=C", "--encoding=UTF8", "--no-sync"); err != nil {
		return err
	}
	return errors.Join(
		appendTo(filepath.Join(data, "postgresql.conf"), "port = %s\nlisten_addresses = '%s'\nunix_socket_directories = '/tmp'\njit = off\n", s.port, s.listen),
		appendTo(filepath.Join(data, "pg_hba.conf"), "host all all %s/32 trust\n", s.host))
}

func appendTo(name, format string, args ...any) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, format, args...)
	return errors.Join(err, f.Close())
}

func (b *bed) psql(ctx context.Context, s *service, query string) (string, error) {
	out, err := output(ctx, filepath.Join(filepath.Dir(s.config.Entrypoint[0]), "psql"),
		"-h", s.host, "-p", s.port, "-U", "postgres", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", query, "postgres")
	return strings.TrimSpace(out), err
}

func (b *bed) postgresKept(ctx context.Context, s *service) error {
	for worker := range s.done {
		want := s.done[worker].Load()
		if want == 0 {
			continue
		}
		out, err := b.psql(ctx, s, fmt.Sprintf("select count(distinct n) from renewals where worker = %d and n < %d", worker, want))
		if err != nil {
			return err
		}
		if out != strconv.FormatInt(want, 10) {
			return fmt.Errorf("worker %d was told of %d rows, there are %s", worker, want, out)
		}
	}
	return nil
}

func (b *bed) goServer(ctx context.Context, s *service) error {
	s.about = "a Go HTTP service that shuts down gracefully, no volume; its slow request goes on for 1 s"
	s.request, s.slow = always(get("/", "go")), get("/slow", "go")
	s.tool, s.failed = wrk, wrkFailed
	program := filepath.Join(b.dir, "goserver")
	build := command(ctx, "go", "build", "-o", program, "github.com/whittle-sec/whittle/testbed/evalrenew/goserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	f, err := image.Host(program, "usr/bin/goserver")
	s.files = []image.File{f}
	s.config.Entrypoint = []string{"/usr/bin/goserver", net.JoinHostPort(s.listen, s.port)}
	return err
}

// seed the data of a service that runs.
func (b *bed) seed(ctx context.Context, s *service) error {
	switch s.kind {
	case "redis":
		_, err := output(ctx, "redis-cli", "-h", s.host, "-p", s.port, "eval",
			"for i = 1, 100000 do redis.call('set', 'filler:' .. i, i) end return 1", "0")
		return err
	case "postgres":
		if _, err := b.psql(ctx, s, "create table renewals (worker int, n bigint)"); err != nil {
			return err
		}
		_, err := output(ctx, filepath.Join(filepath.Dir(s.config.Entrypoint[0]), "pgbench"),
			"-i", "-q", "-s", "1", "-h", s.host, "-p", s.port, "-U", "postgres", "postgres")
		return err
	}
	return nil
}

// freePort on loopback, at this moment. It is below what the kernel gives to clients.
func freePort() (string, error) {
	for port := 18000; port < 19000; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return strconv.Itoa(port), l.Close()
		}
	}
	return "", errors.New("no free port")
}

// answers waits until a service does.
func (s *service) answers(ctx context.Context, talk load.Talk) error {
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		last = s.target().Ask(once, talk)
		cancel()
		if last == nil || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%s does not answer: %w", s.name, last)
}
