// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// interpreters, and those that compile while they run, serve HTTP.
func interpreters() []Service { return []Service{httpServer(), gunicorn(), node(), puma(), java()} }

// page of HTTP has a text in it.
func page(url, text string) do { return getReady(url, text) }

// answer of HTTP to a body.
func answer(method, url string, body []byte, status int, text string) do {
	return func(ctx context.Context, i *Instance) error { return i.expect(ctx, method, url, body, status, text) }
}

// children waits until there are as many with a text in their command line.
func children(text string, want int) do {
	return eventually(func(_ context.Context, i *Instance) error {
		pids, err := i.Children(text)
		if err == nil && len(pids) != want {
			err = fmt.Errorf("%s has %d children %q, want %d", i.Name, len(pids), text, want)
		}
		return err
	})
}

// killed is a child that is killed, and replaced by the service.
func killed(text string, s unix.Signal) do {
	return func(ctx context.Context, i *Instance) error { return i.KillChild(ctx, text, s) }
}

func httpServer() Service {
	const base = "http://127.0.0.1:8000/"
	return Service{
		Name: "http.server", Doc: "python3 -m http.server with CGI", Packages: []string{"python3"},
		Args: []string{"/usr/bin/python3", "-m", "http.server", "--cgi", "--bind", "127.0.0.1", "--directory", "/srv/www", "8000"},
		Dirs: []Dir{{Path: "/srv/www"}, {Path: "/srv/www/sub"}},
		Files: []File{
			{Path: "/srv/www/index.html", Text: "<p>hello\n"}, {Path: "/srv/www/large.bin", Text: string(large(8 << 20))}, {Path: "/srv/www/sub/one.txt", Text: "x"},
			{Path: "/srv/www/cgi-bin/echo.sh", Text: "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nid -un\nhead -c \"$CONTENT_LENGTH\" | tr a-z A-Z\n", Mode: 0o755},
			{Path: "/srv/www/cgi-bin/hello.py", Text: "#!/usr/bin/python3\nprint('Content-Type: text/plain\\n\\nfrom python')\n", Mode: 0o755},
		},
		// As process 1 it has no handler for SIGTERM, which the kernel then does not deliver.
		StopSignal: unix.SIGINT, Ready: page(base, "hello"),
		Ops: []Op{
			{Name: "load", Doc: "pages, and what is not there", Do: repeat(30, page(base, "hello"), answer(http.MethodGet, base+"none", nil, 404, ""))},
			{Name: "large", Rare: true, Doc: "a file of 8 MB", Do: page(base+"large.bin", string(large(1000)))},
			{Name: "list", Rare: true, Doc: "a directory is listed", Do: page(base+"sub/", "one.txt")},
			{Name: "cgi", Rare: true, Doc: "a script is run as nobody", Do: all(answer(http.MethodPost, base+"cgi-bin/echo.sh", []byte("loud"), 200, "nobody\nLOUD"), page(base+"cgi-bin/hello.py", "from python"))},
		},
	}
}

const wsgi = `import os, time
def app(environ, start):
    if environ["PATH_INFO"] == "/hang": time.sleep(30)
    body = environ["wsgi.input"].read()
    if environ["REQUEST_METHOD"] == "PUT":
        with open("/var/tmp/upload", "wb") as f: f.write(body)
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"first version %d" % len(body)]
`

func gunicorn() Service {
	const base = "http://127.0.0.1:8000/"
	return Service{
		Name: "gunicorn", Doc: "Python application server with two workers", Packages: []string{"gunicorn"},
		Args: []string{"/usr/bin/gunicorn", "--workers=2", "--bind=127.0.0.1:8000", "--chdir=/srv/app", "--user=www-data", "--timeout=3", "--graceful-timeout=2",
			"--pid=/run/app.pid", "--access-logfile=/var/log/gunicorn/access.log", "--error-logfile=/var/log/gunicorn/error.log", "app:app"},
		Env: []string{"PYTHONDONTWRITEBYTECODE=1"}, Dirs: []Dir{{Path: "/var/log/gunicorn"}},
		Files: []File{{Path: "/srv/app/app.py", Text: wsgi}},
		Logs:  []string{"/var/log/gunicorn/error.log"}, Ready: page(base, "first"),
		Ops: []Op{
			{Name: "load", Doc: "requests with and without a body", Do: repeat(30, page(base, "version"), answer(http.MethodPost, base, []byte("body"), 200, "version 4"))},
			{Name: "reload", Rare: true, Doc: "the application is changed, SIGHUP", Do: all(changed("/srv/app/app.py", "version", "version or second version"),
				signal(unix.SIGHUP), eventually(page(base, "second")))},
			{Name: "scale", Rare: true, Doc: "a worker more, and one less (SIGTTIN, SIGTTOU)", Do: all(children("gunicorn", 2),
				signal(unix.SIGTTIN), children("gunicorn", 3), page(base, "version"), signal(unix.SIGTTOU), children("gunicorn", 2))},
			{Name: "worker-respawn", Rare: true, Doc: "a worker is killed", Do: all(killed("gunicorn", unix.SIGKILL), page(base, "version"))},
			{Name: "worker-timeout", Rare: true, Doc: "a worker hangs until it is killed by its master", Do: func(ctx context.Context, i *Instance) error {
				if err := i.get(ctx, base+"hang", ""); err == nil {
					return fmt.Errorf("a request that hangs is answered")
				}
				return all(contains("/var/log/gunicorn/error.log", "WORKER TIMEOUT"), page(base, "version"))(ctx, i)
			}},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGUSR1", Do: rotation("/var/log/gunicorn/access.log", unix.SIGUSR1, page(base, "version"))},
			{Name: "upload", Rare: true, Doc: "a body of 8 MB is written to a file", Do: answer(http.MethodPut, base, large(8<<20), 200, "version")},
			{Name: "upgrade", Rare: true, Doc: "a second master is executed (SIGUSR2), and ended", Do: all(
				signal(unix.SIGUSR2), contains("/run/app.pid.2", "\n"), eventually(page(base, "version")),
				admin("", "sh", "-c", "kill -TERM $(cat /run/app.pid.2)"), eventually(admin("", "test", "!", "-e", "/run/app.pid.2")), page(base, "version"))},
		},
	}
}

const nodeApp = `const http = require('http'), fs = require('fs'), cp = require('child_process'), zlib = require('zlib');
const { Worker } = require('worker_threads'), dns = require('dns'), crypto = require('crypto');
let config = fs.readFileSync('/srv/app/config', 'utf8');
process.on('SIGHUP', () => { config = fs.readFileSync('/srv/app/config', 'utf8'); });
const routes = {
  '/': (q, r) => r.end(config),
  '/file': (q, r) => fs.createReadStream('/srv/app/large.bin').pipe(r),
  '/gzip': (q, r) => { r.setHeader('Content-Encoding', 'x-gzip'); fs.createReadStream('/srv/app/large.bin').pipe(zlib.createGzip()).pipe(r); },
  '/spawn': (q, r) => cp.execFile('/usr/bin/expr', ['40', '+', '2'], (e, out) => r.end(String(e || out))),
  '/worker': (q, r) => new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true }).on('message', (m) => r.end(String(m))),
  '/lookup': (q, r) => dns.lookup('localhost', (e, a) => r.end(String(e || a))),
  '/scrypt': (q, r) => crypto.scrypt('a', 'b', 32, (e, k) => r.end(String(e || k.length))),
  '/upload': (q, r) => { const f = fs.createWriteStream('/var/tmp/upload'); q.pipe(f).on('finish', () => fs.fsync(f.fd, () => 0) || fs.rename('/var/tmp/upload', '/var/tmp/kept', (e) => r.end(String(e || 'kept')))); },
};
const server = http.createServer((q, r) => (routes[q.url] || ((q, r) => { r.statusCode = 404; r.end(); }))(q, r)).listen(8000, '127.0.0.1');
process.on('SIGTERM', () => server.close(() => process.exit(0)));
`

func node() Service {
	const base = "http://127.0.0.1:8000/"
	return Service{
		Name: "node", Doc: "an HTTP server in JavaScript: V8 writes the code that it runs", Packages: []string{"nodejs"},
		Args: []string{"/usr/bin/node", "--heapsnapshot-signal=SIGUSR2", "--diagnostic-dir=/srv/dumps", "/srv/app/app.js"},
		Dirs: []Dir{{Path: "/srv/dumps"}},
		Files: []File{{Path: "/srv/app/app.js", Text: nodeApp}, {Path: "/srv/app/config", Text: "first version"},
			{Path: "/srv/app/large.bin", Text: string(large(4 << 20))}},
		Ready: page(base, "version"),
		Ops: []Op{
			{Name: "load", Doc: "requests, also for what is not there", Do: repeat(100, page(base, "version"), answer(http.MethodGet, base+"none", nil, 404, ""))},
			{Name: "reload", Rare: true, Doc: "the configuration is changed, SIGHUP", Do: all(written("/srv/app/config", "second version"), signal(unix.SIGHUP), eventually(page(base, "second")))},
			{Name: "files", Rare: true, Doc: "files are streamed, compressed and uploaded", Do: all(page(base+"file", ""), page(base+"gzip", ""), answer(http.MethodPut, base+"upload", large(4<<20), 200, "kept"))},
			{Name: "spawn", Rare: true, Doc: "another program is run", Do: page(base+"spawn", "42")},
			{Name: "worker", Rare: true, Doc: "a worker thread", Do: page(base+"worker", "42")},
			{Name: "threadpool", Rare: true, Doc: "a name is looked up and a key derived in other threads", Do: all(page(base+"lookup", "127.0.0.1"), page(base+"scrypt", "32"))},
			{Name: "heap-snapshot", Rare: true, Doc: "SIGUSR2 writes what is in memory into a file", Do: all(signal(unix.SIGUSR2), eventually(func(_ context.Context, i *Instance) error {
				files, err := filepath.Glob(i.Path("/srv/dumps/*.heapsnapshot"))
				if err != nil || len(files) == 0 {
					return fmt.Errorf("no heap snapshot is written")
				}
				if st, err := os.Stat(files[0]); err != nil || st.Size() < 1<<20 {
					return fmt.Errorf("the heap snapshot is not whole")
				}
				return nil
			}), page(base, "version"))},
			{Name: "inspector", Rare: true, Doc: "SIGUSR1 starts the inspector", Do: all(signal(unix.SIGUSR1), eventually(page("http://127.0.0.1:9229/json/version", "node.js")))},
		},
	}
}
