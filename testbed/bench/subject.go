// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// subject is a service that is measured. Its port is no part of its command line, so that it is the same workload each time.
type subject struct {
	name     string
	packages []string
	follow   string // of the packages' dependencies
	tools    []string
	command  []string
	reload   string // the signal, if it has one
	workload string // ID, once it was learned
	options  func(bed *supervisedBed, container string, port int) ([]string, error)
	open     func(port int) (*session, error) // nil for what serves nobody
	load     func(ctx context.Context, i *instance) (loaded, error)
	prepare  func(ctx context.Context, bed *supervisedBed) error // before the first start
	fill     func(ctx context.Context, i *instance) error        // while it is learned for the first time
	kept     func(bed *supervisedBed, container string) error    // after that
}

func (s *subject) image() string { return "localhost/" + s.name + ":bench" }

func (s *subject) missing() string {
	for _, tool := range s.tools {
		if _, err := exec.LookPath(tool); err != nil {
			return tool
		}
	}
	if len(s.command) == 0 {
		return "server"
	}
	return ""
}

// file of a container's own, that it sees under another name.
func file(bed *supervisedBed, container, name, text string) (volume string, err error) {
	dir := filepath.Join(bed.bench.dir, container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(name))
	return "--volume=" + path + ":" + name + ":ro", os.WriteFile(path, []byte(text), 0o644)
}

func redisSubject() *subject {
	return &subject{
		name: "redis", packages: []string{"redis-server"}, follow: "^redis", tools: []string{"redis-server", "redis-benchmark"},
		command: []string{"/usr/bin/redis-server", "/etc/bench.conf"}, load: redisLoad,
		options: func(bed *supervisedBed, container string, port int) ([]string, error) {
			volume, err := file(bed, container, "/etc/bench.conf", fmt.Sprintf("port %d\nbind 127.0.0.1\ndir /tmp\nsave \"\"\n", port))
			return []string{volume}, err
		},
		open: func(port int) (*session, error) { return openSession(port, redisExchange) },
	}
}

const benchNginx = `daemon off; worker_processes 1; pid /tmp/nginx.pid; error_log /dev/stderr; user www-data;
events {} http { access_log off; keepalive_requests 1000000; server { listen 127.0.0.1:%d; root /usr/share/nginx/html; } }
`

func nginxSubject() *subject {
	return &subject{
		name: "nginx", packages: []string{"nginx"}, follow: "^(nginx|libnginx)", tools: []string{"nginx", "wrk"},
		command: []string{"/usr/sbin/nginx", "-c", "/etc/bench.conf"}, load: wrkLoad, reload: "HUP",
		options: func(bed *supervisedBed, container string, port int) ([]string, error) {
			volume, err := file(bed, container, "/etc/bench.conf", fmt.Sprintf(benchNginx, port))
			return []string{volume}, err
		},
		open: func(port int) (*session, error) { return openSession(port, httpExchange) },
	}
}

// postgresSubject works on a copy of one database, which is made before anything is measured.
func postgresSubject() *subject {
	s := &subject{
		name: "postgresql", follow: "^(postgresql|libpq)", tools: []string{"postgres", "pgbench"}, load: pgbenchLoad, reload: "HUP",
		open: openPostgres,
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	account, err := user.Lookup("postgres")
	if len(found) == 0 || err != nil {
		s.tools = []string{"postgresql"}
		return s
	}
	server := found[len(found)-1]
	bin := filepath.Dir(server)
	s.packages = []string{"postgresql-" + filepath.Base(filepath.Dir(bin)), "tzdata"}
	s.tools = []string{"pgbench"}
	s.command = []string{server, "-D", "/data", "-c", "unix_socket_directories=/tmp", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "autovacuum=off"}
	s.options = func(bed *supervisedBed, container string, port int) ([]string, error) {
		dir := filepath.Join(bed.bench.dir, container)
		if out, err := exec.Command("cp", "--archive", template(bed), dir).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("copy the database: %w: %s", err, out)
		}
		return []string{"--volume=" + dir + ":/data", "--user=" + account.Uid + ":" + account.Gid, fmt.Sprintf("--env=PGPORT=%d", port)}, nil
	}
	s.prepare = func(ctx context.Context, bed *supervisedBed) error {
		dir := template(bed)
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, uid, gid)); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "setpriv", "--reuid", account.Uid, "--regid", account.Gid, "--clear-groups", "--",
			filepath.Join(bin, "initdb"), "-D", dir, "--no-sync", "--auth=trust", "--locale=C", "--wal-segsize=1")
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("initdb: %w: %s", err, out)
		}
		return nil
	}
	s.fill = func(ctx context.Context, i *instance) error {
		return quietly(exec.CommandContext(ctx, "pgbench", pgbench(i.port, "-i", "-q", "-s", "2")...))
	}
	s.kept = func(bed *supervisedBed, container string) error {
		return errors.Join(os.RemoveAll(template(bed)), os.Rename(filepath.Join(bed.bench.dir, container), template(bed)))
	}
	return s
}

func template(bed *supervisedBed) string { return filepath.Join(bed.bench.dir, "postgresql-template") }

func pgbench(port int, more ...string) []string {
	return append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres"}, append(more, "postgres")...)
}

func quietly(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
