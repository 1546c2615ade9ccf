// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

const nginxConf = `user www-data;
worker_processes 2;
worker_rlimit_nofile 1000;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log notice;
include /etc/nginx/modules-enabled/*.conf;
events { worker_connections 256; }
http {
	include /etc/nginx/mime.types;
	sendfile on;
	tcp_nopush on;
	access_log /var/log/nginx/access.log;
	client_max_body_size 64m;
	client_body_buffer_size 16k;
	proxy_cache_path /var/cache/nginx levels=1:2 keys_zone=c:1m max_size=4m inactive=10m;
	server {
		listen 80;
		listen 443 ssl;
		ssl_certificate /etc/nginx/cert.pem;
		ssl_certificate_key /etc/nginx/key.pem;
		root /srv/www;
		location = /version { return 200 "version one"; }
		location /dav/ { dav_methods PUT DELETE; create_full_put_path on; }
		location /gzip/ { alias /srv/www/; gzip on; gzip_types text/plain; gzip_min_length 1; }
		location /cached/ {
			proxy_pass http://127.0.0.1:81/;
			proxy_cache c;
			proxy_cache_key $uri;
			proxy_cache_valid 200 10m;
			add_header X-Cache $upstream_cache_status;
		}
	}
	server {
		listen 127.0.0.1:81;
		root /srv/www;
	}
}
`

func nginx() Service {
	cert, key := certificate(1)
	return Service{
		Name: "nginx", Doc: "web server with a cache, uploads and TLS",
		Packages: []string{"nginx-light"},
		Args:     []string{"/usr/sbin/nginx", "-g", "daemon off;"},
		Hide:     []string{"/var/log/nginx"}, Logs: []string{"/var/log/nginx/error.log"},
		Dirs: []Dir{
			{Path: "/var/log/nginx"}, {Path: "/srv/www"}, {Path: "/srv/www/dav", Owner: "www-data"}, {Path: "/var/cache/nginx", Owner: "www-data"},
		},
		Files: []File{
			{Path: "/etc/nginx/nginx.conf", Text: nginxConf}, {Path: "/srv/www/index.html", Text: "<p>hello\n"},
			{Path: "/srv/www/large.bin", Text: string(large(8 << 20))}, {Path: "/srv/www/text.txt", Text: "some text to be compressed\n"},
			{Path: "/etc/nginx/cert.pem", Text: cert}, {Path: "/etc/nginx/key.pem", Text: key, Mode: 0o600},
		},
		Ready: getReady("http://127.0.0.1/", "hello"),
		Ops: []Op{
			{Name: "load", Doc: "small pages, compressed ones, pages from the cache, what is not there, TLS", Do: nginxLoad},
			{Name: "reload", Rare: true, Doc: "SIGHUP with a changed configuration", Do: nginxReload},
			{Name: "cache-purge", Rare: true, Doc: "the cache gets larger than it may, and its manager purges it", Do: nginxPurge},
			{Name: "log-reopen", Rare: true, Doc: "the logs are renamed, SIGUSR1", Do: func(ctx context.Context, i *Instance) error {
				return i.rotated(ctx, "/var/log/nginx/access.log", func() error { return i.Signal(unix.SIGUSR1) },
					func() error { return i.get(ctx, "http://127.0.0.1/", "hello") })
			}},
			{Name: "worker-respawn", Rare: true, Doc: "a worker is killed", Do: func(ctx context.Context, i *Instance) error {
				return errors.Join(i.KillChild(ctx, "worker process", unix.SIGKILL), i.get(ctx, "http://127.0.0.1/", "hello"))
			}},
			{Name: "large-upload", Rare: true, Doc: "PUT of 24 MB, downloaded by sendfile, deleted", Do: nginxUpload},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate, SIGHUP", Do: nginxTLS},
			{Name: "limits", Rare: true, Doc: "worker_rlimit_core and worker_priority are changed, SIGHUP", Do: nginxLimits},
		},
	}
}

func nginxLoad(ctx context.Context, i *Instance) error {
	for range 20 {
		err := errors.Join(
			i.get(ctx, "http://127.0.0.1/", "hello"), i.get(ctx, "http://127.0.0.1/text.txt", "text"),
			i.get(ctx, "http://127.0.0.1/gzip/text.txt", "text"), i.get(ctx, "http://127.0.0.1/cached/text.txt", "text"),
			i.expect(ctx, http.MethodGet, "http://127.0.0.1/none", nil, http.StatusNotFound, ""),
		)
		if err != nil {
			return err
		}
		if _, err := i.serial(ctx, "127.0.0.1:443"); err != nil {
			return err
		}
	}
	return i.get(ctx, "http://127.0.0.1/large.bin", "")
}

func nginxReload(ctx context.Context, i *Instance) error {
	word := fmt.Sprintf("version %d", time.Now().UnixNano())
	if err := i.replace("/etc/nginx/nginx.conf", `return 200 "version one"`, `return 200 "version one"; add_header X-Version "`+word+`"`); err != nil {
		return err
	}
	if err := i.Signal(unix.SIGHUP); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		_, header, _, err := i.request(ctx, http.MethodGet, "http://127.0.0.1/version", nil)
		if err == nil && header.Get("X-Version") != word {
			err = errors.New("the old configuration is still served")
		}
		return err
	})
}

// The cache's manager purges what is least used when there is more than max_size, once in 10 s. Debian's module for purging
// by request (libnginx-mod-http-cache-purge 2.3) crashes its worker.
func nginxPurge(ctx context.Context, i *Instance) error {
	size := func() (n int64, err error) {
		err = filepath.WalkDir(i.Path("/var/cache/nginx"), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // purged meanwhile
			}
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
			return nil
		})
		return n, err
	}
	if err := i.get(ctx, "http://127.0.0.1/cached/large.bin", ""); err != nil {
		return err
	}
	if n, err := size(); err != nil || n < 8<<20 {
		return fmt.Errorf("the page is not in the cache: it has %d bytes (%v)", n, err)
	}
	return Eventually(ctx, 30*time.Second, func() error {
		n, err := size()
		if err == nil && n > 4<<20 {
			err = fmt.Errorf("there are %d bytes in the cache", n)
		}
		return err
	})
}

func nginxUpload(ctx context.Context, i *Instance) error {
	body := large(24 << 20)
	const url = "http://127.0.0.1/dav/new/upload.bin"
	if err := i.expect(ctx, http.MethodPut, url, body, http.StatusCreated, ""); err != nil {
		return err
	}
	_, _, got, err := i.request(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, body) {
		return errors.New("what was uploaded is not what is downloaded")
	}
	return i.expect(ctx, http.MethodDelete, url, nil, http.StatusNoContent, "")
}

func nginxTLS(ctx context.Context, i *Instance) error {
	cert, key := certificate(2)
	if err := errors.Join(i.rewrite("/etc/nginx/cert.pem", cert), i.rewrite("/etc/nginx/key.pem", key), i.Signal(unix.SIGHUP)); err != nil {
		return err
	}
	return i.awaitSerial(ctx, "127.0.0.1:443", 2)
}

func nginxLimits(ctx context.Context, i *Instance) error {
	old, err := i.Children("worker process")
	if err != nil {
		return err
	}
	more := "worker_rlimit_nofile 900;\nworker_rlimit_core 1m;\nworker_priority 5;"
	if err := i.replace("/etc/nginx/nginx.conf", "worker_rlimit_nofile 1000;", more); err != nil {
		return err
	}
	if err := i.Signal(unix.SIGHUP); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		now, err := i.Children("worker process")
		if err != nil {
			return err
		}
		for _, pid := range now {
			// Not prlimit: that asks for CAP_SYS_RESOURCE.
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
			if err == nil && regexp.MustCompile(`Max core file size +1048576 `).Match(limits) {
				return nil
			}
		}
		return fmt.Errorf("no worker of %d has the new limit (before: %d)", now, old)
	})
}
