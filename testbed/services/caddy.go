// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
)

const caddyfile = `{
	admin 127.0.0.1:2019
	auto_https off
	default_sni localhost
}
http://127.0.0.1:8080 {
	root * /srv/www
	encode gzip
	log {
		output file /var/log/caddy/access.log {
			roll_size 1MiB
			roll_keep 2
		}
	}
	respond /version "first version"
	reverse_proxy /back/* 127.0.0.1:8081
	file_server browse
}
http://127.0.0.1:8081 {
	respond "behind"
}
https://localhost:8443 {
	tls /etc/caddy/cert.pem /etc/caddy/key.pem
	respond "over TLS"
}
`

func caddy() Service {
	const base = "http://127.0.0.1:8080/"
	cert, key := certificate(1)
	cert2, key2 := certificate(2)
	loaded := client("", "curl", "-sS", "--fail", "--noproxy", "*", "-H", "Content-Type: text/caddyfile", "-H", "Cache-Control: must-revalidate", "--data-binary", "@{ROOT}/etc/caddy/whittle", "http://127.0.0.1:2019/load")
	return Service{
		Name: "caddy", Doc: "web server in Go with an administration over HTTP", Packages: []string{"caddy", "curl"}, User: "caddy",
		Args: []string{"/usr/bin/caddy", "run", "--adapter", "caddyfile", "--config", "/etc/caddy/whittle"},
		Env:  []string{"HOME=/var/lib/caddy", "XDG_DATA_HOME=/var/lib/caddy", "XDG_CONFIG_HOME=/var/lib/caddy"},
		Hide: []string{"/var/lib/caddy", "/var/log/caddy"},
		Dirs: []Dir{{Path: "/var/lib/caddy", Owner: "caddy"}, {Path: "/var/log/caddy", Owner: "caddy"}, {Path: "/srv/www/sub"}},
		Files: []File{
			{Path: "/etc/caddy/whittle", Text: caddyfile}, {Path: "/etc/caddy/cert.pem", Text: cert}, {Path: "/etc/caddy/key.pem", Text: key, Owner: "caddy", Mode: 0o600},
			{Path: "/srv/www/index.html", Text: "<p>hello\n"}, {Path: "/srv/www/large.bin", Text: string(large(8 << 20))}, {Path: "/srv/www/sub/one.txt", Text: "x"},
		},
		Ready: page(base, "hello"),
		Ops: []Op{
			{Name: "load", Doc: "pages, and what is not there", Do: repeat(40, page(base, "hello"), page(base+"version", "version"), answer(http.MethodGet, base+"none", nil, 404, ""))},
			{Name: "large", Rare: true, Doc: "a file of 8 MB, by sendfile", Do: page(base+"large.bin", string(large(1000)))},
			{Name: "proxy", Rare: true, Doc: "requests are passed on to another server, which is itself", Do: repeat(5, page(base+"back/x", "behind"))},
			{Name: "list", Rare: true, Doc: "a directory is listed", Do: page(base+"sub/", "one.txt")},
			{Name: "reload", Rare: true, Doc: "a new configuration is sent", Do: all(changed("/etc/caddy/whittle", "first version", "first version or second"), loaded, eventually(page(base+"version", "second")))},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate, and the configuration again", Do: all(served("127.0.0.1:8443", 1), written("/etc/caddy/cert.pem", cert2),
				written("/etc/caddy/key.pem", key2), loaded, served("127.0.0.1:8443", 2))},
			{Name: "log-rotation", Rare: true, Doc: "requests until the log is full, renamed and compressed", Do: func(ctx context.Context, i *Instance) error {
				for range 300 {
					if err := i.get(ctx, base+"index.html?"+strings.Repeat("x", 4000), "hello"); err != nil {
						return err
					}
				}
				return eventually(func(context.Context, *Instance) error {
					files, err := os.ReadDir(i.Path("/var/log/caddy"))
					if err == nil && len(files) < 2 {
						err = errors.New("the log is not rotated")
					}
					return err
				})(ctx, i)
			}},
			{Name: "metrics", Rare: true, Doc: "statistics and the configuration are read", Do: all(page("http://127.0.0.1:2019/metrics", "go_goroutines"), page("http://127.0.0.1:2019/config/", "apps"))},
		},
	}
}
