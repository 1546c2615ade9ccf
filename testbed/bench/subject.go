// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
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
	ask      func(port int) error // on a connection of its own; nil when it answered
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
		ask: func(port int) error { return exchange(port, "PING\r\n", "+PONG") },
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
		ask: func(port int) error {
			return exchange(port, "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n", "HTTP/1.1 ")
		},
	}
}

// exchange a request for the beginning of its answer.
func exchange(port int, request, want string) error {
	conn, err := dial(port)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("it answers %q", got)
	}
	return nil
}

func dial(port int) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), 5*time.Second)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(5 * time.Second))
}

// postgresSubject works on a copy of one database, which is made before anything is measured.
func postgresSubject() *subject {
	s := &subject{
		name: "postgresql", follow: "^(postgresql|libpq)", tools: []string{"postgres", "pgbench"}, load: pgbenchLoad, reload: "HUP",
		ask: askPostgres,
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

// askPostgres opens a session: it answers once it is ready for a query.
func askPostgres(port int) error {
	conn, err := dial(port)
	if err != nil {
		return err
	}
	defer conn.Close()
	text := "user\x00postgres\x00database\x00postgres\x00\x00"
	message := binary.BigEndian.AppendUint32(nil, uint32(8+len(text)))
	message = append(binary.BigEndian.AppendUint32(message, 3<<16), text...) // version 3.0 of the protocol
	if _, err := conn.Write(message); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		if _, err := in.Discard(int(binary.BigEndian.Uint32(head[1:])) - 4); err != nil {
			return err
		}
		switch head[0] {
		case 'Z':
			_, err := conn.Write([]byte{'X', 0, 0, 0, 4})
			return err
		case 'E':
			return errors.New("it is starting up")
		}
	}
}
