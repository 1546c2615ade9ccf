// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pages that programs make: FastCGI and CGI.
func pages() []Service { return []Service{phpFPM(), lighttpd()} }

const fpmConf = `[global]
error_log = /var/log/php/fpm.log
daemonize = no
[www]
user = www-data
group = www-data
listen = 127.0.0.1:9000
pm = dynamic
pm.max_children = 5
pm.start_servers = 2
pm.min_spare_servers = 1
pm.max_spare_servers = 3
access.log = /var/log/php/access.log
php_admin_value[memory_limit] = 256M
php_admin_value[sendmail_path] = /srv/php/sendmail
env[VERSION] = one
`

const fpmScript = `<?php
switch ($_GET['do'] ?? '') {
case 'session':
	session_save_path('/tmp'); session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo 'session ', session_id() != ''; break;
case 'mail':
	echo mail('a@localhost', 'subject', 'body') ? 'mail sent' : 'mail failed'; break;
case 'exec':
	echo 'output ', trim(shell_exec('echo of a shell')); break;
case 'memory':
	$s = ''; for ($i = 0; $i < 64; $i++) { $s .= str_repeat(chr($i + 32), 1 << 20); } echo 'memory ', strlen($s); break;
case 'files':
	$f = '/tmp/php.' . getmypid(); mkdir($f); file_put_contents("$f/a", 'x', LOCK_EX); rename("$f/a", "$f/b"); touch("$f/b", 1);
	chmod("$f/b", 0600); symlink("$f/b", "$f/c"); unlink("$f/c"); unlink("$f/b"); rmdir($f); echo 'files done'; break;
case 'fetch':
	echo 'fetched ', strlen(file_get_contents('http://127.0.0.1:8088/x')) > 0 ? 'something' : 'nothing'; break;
default:
	echo 'hello ', getenv('VERSION') ?: $_SERVER['VERSION'] ?? '?', ' ', hash('sha256', random_bytes(16));
}
`

func phpFPM() Service {
	page := func(query, want string) func(context.Context, *Instance) error {
		return func(ctx context.Context, i *Instance) error { return i.php(ctx, query, want) }
	}
	found, _ := filepath.Glob("/usr/sbin/php-fpm*")
	program := "/usr/sbin/php-fpm8.2"
	if len(found) > 0 {
		program = found[0]
	}
	return Service{
		Name: "php-fpm", Doc: "FastCGI processes of PHP", Packages: []string{"php8.2-fpm"},
		Args: []string{program, "-F", "-y", "/etc/php/test.conf"},
		Dirs: []Dir{{Path: "/var/log/php"}, {Path: "/srv/php"}, {Path: "/run/php", Owner: "www-data"}},
		Logs: []string{"/var/log/php/fpm.log"},
		Files: []File{
			{Path: "/etc/php/test.conf", Text: fpmConf}, {Path: "/srv/php/index.php", Text: fpmScript},
			{Path: "/srv/php/sendmail", Text: "#!/bin/sh\ncat >/tmp/mail\n", Mode: 0o755},
		},
		Ready: page("", "hello"),
		Ops: []Op{
			{Name: "load", Doc: "small pages, sessions", Do: func(ctx context.Context, i *Instance) error {
				for range 30 {
					if err := errors.Join(i.php(ctx, "", "hello"), i.php(ctx, "do=session", "session 1")); err != nil {
						return err
					}
				}
				return nil
			}},
			{Name: "reload", Rare: true, Doc: "SIGUSR2 executes it again, with a changed configuration", Do: func(ctx context.Context, i *Instance) error {
				word := fmt.Sprint(time.Now().UnixNano())
				if err := errors.Join(i.replace("/etc/php/test.conf", "env[VERSION] = ", "env[VERSION] = "+word+" ; "), i.Signal(unix.SIGUSR2)); err != nil {
					return err
				}
				return Eventually(ctx, 20*time.Second, func() error { return i.php(ctx, "", "hello "+word) })
			}},
			{Name: "log-reopen", Rare: true, Doc: "SIGUSR1 after the logs were renamed", Do: func(ctx context.Context, i *Instance) error {
				return i.rotated(ctx, "/var/log/php/access.log", func() error { return i.Signal(unix.SIGUSR1) }, func() error { return i.php(ctx, "", "hello") })
			}},
			{Name: "worker-respawn", Rare: true, Doc: "a worker is killed", Do: func(ctx context.Context, i *Instance) error {
				return errors.Join(i.KillChild(ctx, "pool www", unix.SIGKILL), i.php(ctx, "", "hello"))
			}},
			{Name: "mail", Rare: true, Doc: "mail() runs sendmail", Do: page("do=mail", "mail sent")},
			{Name: "exec", Rare: true, Doc: "shell_exec()", Do: page("do=exec", "output of a shell")},
			{Name: "memory-growth", Rare: true, Doc: "a string of 64 MB", Do: page("do=memory", "memory 67108864")},
			{Name: "files", Rare: true, Doc: "files are made, renamed, removed", Do: page("do=files", "files done")},
			{Name: "fetch", Rare: true, Doc: "a page of another server", Do: func(ctx context.Context, i *Instance) error {
				return i.withOrigin(ctx, "127.0.0.1:8088", func() error { return i.php(ctx, "do=fetch", "fetched something") })
			}},
		},
	}
}

// php runs the script.
func (i *Instance) php(ctx context.Context, query, want string) error {
	conn, err := i.Dial(ctx, "tcp", "127.0.0.1:9000")
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	out, err := FastCGI(conn, map[string]string{
		"SCRIPT_FILENAME": "/srv/php/index.php", "SCRIPT_NAME": "/index.php", "REQUEST_METHOD": "GET", "QUERY_STRING": query,
		"REQUEST_URI": "/?" + query, "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1",
	})
	if err != nil {
		return fmt.Errorf("php: %w", err)
	}
	if !strings.Contains(out, want) {
		return fmt.Errorf("php answers %.500q, want %q", out, want)
	}
	return nil
}

const lighttpdConf = `server.modules = ("mod_cgi", "mod_accesslog", "mod_setenv", "mod_access")
server.port = 80
server.bind = "127.0.0.1"
server.document-root = "/srv/www"
server.username = "www-data"
server.groupname = "www-data"
server.errorlog = "/var/log/lighttpd/error.log"
server.pid-file = "/run/lighttpd.pid"
server.upload-dirs = ("/tmp")
accesslog.filename = "/var/log/lighttpd/access.log"
index-file.names = ("index.html")
mimetype.assign = (".html" => "text/html", ".bin" => "application/octet-stream")
cgi.assign = (".sh" => "/bin/sh")
setenv.add-response-header = ("X-Version" => "one")
`

func lighttpd() Service {
	return Service{
		Name: "lighttpd", Doc: "small web server with CGI", Packages: []string{"lighttpd"},
		Args: []string{"/usr/sbin/lighttpd", "-D", "-f", "/etc/lighttpd/test.conf"},
		Hide: []string{"/var/log/lighttpd"}, Logs: []string{"/var/log/lighttpd/error.log"},
		Dirs: []Dir{{Path: "/var/log/lighttpd", Owner: "www-data"}, {Path: "/srv/www"}},
		Files: []File{
			{Path: "/etc/lighttpd/test.conf", Text: lighttpdConf}, {Path: "/srv/www/index.html", Text: "<p>hello\n"},
			{Path: "/srv/www/large.bin", Text: string(large(8 << 20))},
			{Path: "/srv/www/count.sh", Text: "echo 'Content-Type: text/plain'\necho\necho received $(wc -c)\n"},
		},
		Ready: getReady("http://127.0.0.1/", "hello"),
		Ops: []Op{
			{Name: "load", Doc: "small pages, a large one", Do: func(ctx context.Context, i *Instance) error {
				return errors.Join(getOp(50, "http://127.0.0.1/")(ctx, i), i.get(ctx, "http://127.0.0.1/large.bin", ""),
					i.expect(ctx, http.MethodGet, "http://127.0.0.1/none", nil, http.StatusNotFound, ""))
			}},
			{Name: "log-reopen", Rare: true, Doc: "SIGHUP after the logs were renamed", Do: func(ctx context.Context, i *Instance) error {
				if err := os.Rename(i.Path("/var/log/lighttpd/access.log"), i.Path("/var/log/lighttpd/access.log.1")); err != nil {
					return err
				}
				if err := i.Signal(unix.SIGHUP); err != nil {
					return err
				}
				return Eventually(ctx, 20*time.Second, func() error {
					if err := i.get(ctx, "http://127.0.0.1/", "hello"); err != nil {
						return err
					}
					_, err := os.Stat(i.Path("/var/log/lighttpd/access.log")) // it is written to when its buffer is full
					return err
				})
			}},
			{Name: "reload", Rare: true, Doc: "SIGUSR1 restarts it gracefully with a changed configuration", Do: func(ctx context.Context, i *Instance) error {
				if err := i.replace("/etc/lighttpd/test.conf", `"X-Version" => "one"`, `"X-Version" => "two"`); err != nil {
					return err
				}
				return errors.Join(i.awaitHeader(ctx, unix.SIGUSR1, "X-Version", "two"), i.replace("/etc/lighttpd/test.conf", `"two"`, `"one"`))
			}},
			{Name: "cgi", Rare: true, Doc: "a script is run", Do: func(ctx context.Context, i *Instance) error {
				return i.get(ctx, "http://127.0.0.1/count.sh", "received 0")
			}},
			{Name: "large-upload", Rare: true, Doc: "8 MB are posted to a script", Do: func(ctx context.Context, i *Instance) error {
				return i.expect(ctx, http.MethodPost, "http://127.0.0.1/count.sh", large(8<<20), http.StatusOK, "received 8388608")
			}},
		},
	}
}
