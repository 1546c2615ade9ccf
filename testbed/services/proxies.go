// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// proxies and caches of HTTP.
func proxies() []Service { return []Service{haproxy(), squid(), varnish()} }

const haproxyConf = `global
	stats socket /run/haproxy/admin.sock mode 660 level admin
	user haproxy
	group haproxy
	maxconn 500
defaults
	mode http
	timeout connect 5s
	timeout client 20s
	timeout server 20s
frontend web
	bind 127.0.0.1:80
	bind 127.0.0.1:443 ssl crt /etc/haproxy/site.pem
	http-response set-header X-Version one
	use_backend origin if { path_beg /origin }
	default_backend servers
backend servers
	option httpchk GET /
	server s1 127.0.0.1:8001 check inter 200ms
	server s2 127.0.0.1:8002 check inter 200ms backup
backend origin
	server o 127.0.0.1:8088
frontend one
	bind 127.0.0.1:8001
	http-request return status 200 content-type text/plain string "server one"
frontend two
	bind 127.0.0.1:8002
	http-request return status 200 content-type text/plain string "server two"
`

func haproxy() Service {
	cert, key := certificate(1)
	return Service{
		Name: "haproxy", Doc: "load balancer with a master and a worker", Packages: []string{"haproxy"},
		Args:  []string{"/usr/sbin/haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"},
		Dirs:  []Dir{{Path: "/run/haproxy", Owner: "haproxy"}},
		Files: []File{{Path: "/etc/haproxy/haproxy.cfg", Text: haproxyConf}, {Path: "/etc/haproxy/site.pem", Text: cert + key, Mode: 0o600}},
		Ready: getReady("http://127.0.0.1/", "server one"),
		Ops: []Op{
			{Name: "load", Doc: "requests, over TLS too", Do: func(ctx context.Context, i *Instance) error {
				for range 50 {
					if err := i.get(ctx, "http://127.0.0.1/", "server"); err != nil {
						return err
					}
					if _, err := i.serial(ctx, "127.0.0.1:443"); err != nil {
						return err
					}
				}
				return nil
			}},
			{Name: "stats", Rare: true, Doc: "show info, show stat, show sess on the admin socket", Do: func(ctx context.Context, i *Instance) error {
				for command, want := range map[string]string{"show info": "Uptime", "show stat": "servers", "show sess all": "", "show errors": ""} {
					if got, err := i.haproxyAdmin(ctx, command); err != nil || !strings.Contains(got, want) {
						return errors.Join(err, fmt.Errorf("%s answers %.100q", command, got))
					}
				}
				return nil
			}},
			{Name: "failover", Rare: true, Doc: "a server is set to maintenance, and comes back", Do: haproxyFailover},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate through the admin socket", Do: haproxyTLS},
			{Name: "reload", Rare: true, Doc: "SIGUSR2 with a changed configuration", Do: func(ctx context.Context, i *Instance) error {
				if err := i.replace("/etc/haproxy/haproxy.cfg", "X-Version one", "X-Version two"); err != nil {
					return err
				}
				return errors.Join(i.awaitHeader(ctx, unix.SIGUSR2, "X-Version", "two"), i.replace("/etc/haproxy/haproxy.cfg", "X-Version two", "X-Version one"))
			}},
			{Name: "large", Rare: true, Doc: "an upload of 8 MB", Do: func(ctx context.Context, i *Instance) error {
				return i.withOrigin(ctx, "127.0.0.1:8088", func() error {
					return i.expect(ctx, http.MethodPost, "http://127.0.0.1/origin", large(8<<20), http.StatusOK, "8388608 bytes")
				})
			}},
		},
	}
}

func (i *Instance) haproxyAdmin(ctx context.Context, command string) (string, error) {
	conn, err := i.Dial(ctx, "unix", "/run/haproxy/admin.sock")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}

func haproxyFailover(ctx context.Context, i *Instance) error {
	for _, step := range []struct{ command, want string }{
		{"set server servers/s1 state maint", "server two"}, {"set server servers/s1 state ready", "server one"},
	} {
		if _, err := i.haproxyAdmin(ctx, step.command); err != nil {
			return err
		}
		if err := Eventually(ctx, 20*time.Second, func() error { return i.get(ctx, "http://127.0.0.1/", step.want) }); err != nil {
			return err
		}
	}
	return nil
}

func haproxyTLS(ctx context.Context, i *Instance) error {
	cert, key := certificate(2)
	if _, err := i.haproxyAdmin(ctx, "set ssl cert /etc/haproxy/site.pem <<\n"+strings.TrimSpace(cert+key)+"\n"); err != nil {
		return err
	}
	if got, err := i.haproxyAdmin(ctx, "commit ssl cert /etc/haproxy/site.pem"); err != nil || !strings.Contains(got, "Success") {
		return errors.Join(err, fmt.Errorf("commit answers %q", got))
	}
	return i.awaitSerial(ctx, "127.0.0.1:443", 2)
}

const squidConf = `http_port 127.0.0.1:3128
cache_effective_user proxy
pid_filename /run/squid.pid
cache_dir ufs /var/spool/squid 32 4 4
cache_mem 4 MB
maximum_object_size 8 MB
access_log stdio:/var/log/squid/access.log
cache_log /var/log/squid/cache.log
acl PURGE method PURGE
http_access allow PURGE localhost
http_access allow localhost
http_access deny all
shutdown_lifetime 1 seconds
pinger_enable off
logfile_rotate 2
visible_hostname one
`

func squid() Service {
	return Service{
		Name: "squid", Doc: "forward proxy with a cache on disk", Packages: []string{"squid"},
		Args: []string{"/usr/sbin/squid", "--foreground", "-f", "/etc/squid/squid.conf"},
		Hide: []string{"/var/spool/squid", "/var/log/squid"}, Logs: []string{"/var/log/squid/cache.log"},
		Dirs:    []Dir{{Path: "/var/spool/squid", Owner: "proxy"}, {Path: "/var/log/squid", Owner: "proxy"}, {Path: "/run", Mode: 0o777}},
		Files:   []File{{Path: "/etc/squid/squid.conf", Text: squidConf}},
		Prepare: []Command{{Args: []string{"squid", "-N", "-z", "-f", "/etc/squid/squid.conf"}}},
		Ready:   func(ctx context.Context, i *Instance) error { return i.squidLoad(ctx, 1) },
		Ops: []Op{
			{Name: "load", Doc: "pages, from the origin and from the cache", Do: func(ctx context.Context, i *Instance) error { return i.squidLoad(ctx, 30) }},
			{Name: "reconfigure", Rare: true, Doc: "SIGHUP with a changed configuration", Do: func(ctx context.Context, i *Instance) error {
				name := fmt.Sprintf("visible_hostname host%d", time.Now().UnixNano())
				if err := errors.Join(i.replace("/etc/squid/squid.conf", "visible_hostname", name+"\n# before:"), i.Signal(unix.SIGHUP)); err != nil {
					return err
				}
				return Eventually(ctx, 20*time.Second, func() error {
					_, header, _, err := i.squidGet(ctx, http.MethodGet, "http://127.0.0.1:8088/a")
					if got := header.Get("Via"); err == nil && !strings.Contains(got, name[len("visible_hostname "):]) {
						err = fmt.Errorf("it still says %q", got)
					}
					return err
				})
			}},
			{Name: "log-rotate", Rare: true, Doc: "SIGUSR1 rotates the logs", Do: func(ctx context.Context, i *Instance) error {
				if err := i.Signal(unix.SIGUSR1); err != nil {
					return err
				}
				return Eventually(ctx, 20*time.Second, func() error { _, err := os.Stat(i.Path("/var/log/squid/access.log.0")); return err })
			}},
			{Name: "purge", Rare: true, Doc: "PURGE of a cached page", Do: func(ctx context.Context, i *Instance) error {
				return i.withOrigin(ctx, "127.0.0.1:8088", func() error {
					if status, _, _, err := i.squidGet(ctx, http.MethodGet, "http://127.0.0.1:8088/large.bin"); err != nil || status != http.StatusOK {
						return errors.Join(err, fmt.Errorf("status %d", status))
					}
					return Eventually(ctx, 20*time.Second, func() error {
						status, _, _, err := i.squidGet(ctx, "PURGE", "http://127.0.0.1:8088/large.bin")
						if err == nil && status != http.StatusOK {
							err = fmt.Errorf("PURGE answers %d", status)
						}
						return err
					})
				})
			}},
			{Name: "tunnel", Rare: true, Doc: "CONNECT", Do: func(ctx context.Context, i *Instance) error {
				return i.withOrigin(ctx, "127.0.0.1:443", func() error {
					conn, err := i.Dial(ctx, "tcp", "127.0.0.1:3128")
					if err != nil {
						return err
					}
					defer conn.Close()
					_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
					if _, err := io.WriteString(conn, "CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\nGET /t HTTP/1.0\r\n\r\n"); err != nil {
						return err
					}
					text, err := io.ReadAll(conn)
					if !strings.Contains(string(text), "hello from /t") {
						err = errors.Join(err, fmt.Errorf("the tunnel answers %.200q", text))
					}
					return err
				})
			}},
		},
	}
}

func (i *Instance) squidGet(ctx context.Context, method, page string) (int, http.Header, string, error) {
	client := i.HTTP()
	transport, _ := client.Transport.(*http.Transport)
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:3128"})
	req, err := http.NewRequestWithContext(ctx, method, page, nil)
	if err != nil {
		return 0, nil, "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(text), err
}

func (i *Instance) squidLoad(ctx context.Context, times int) error {
	return i.withOrigin(ctx, "127.0.0.1:8088", func() error {
		for n := range times {
			for _, page := range []string{"/a", fmt.Sprintf("/b%d", n)} {
				status, _, text, err := i.squidGet(ctx, http.MethodGet, "http://127.0.0.1:8088"+page)
				if err != nil || status != http.StatusOK || !strings.Contains(text, "hello from "+page) {
					return errors.Join(err, fmt.Errorf("%s answers %d %.100q", page, status, text))
				}
			}
		}
		return nil
	})
}

const varnishVCL = `vcl 4.1;
backend default { .host = "127.0.0.1"; .port = "8088"; }
sub vcl_recv { if (req.method == "PURGE") { return (purge); } }
sub vcl_deliver { set resp.http.X-Version = "one"; if (obj.hits > 0) { set resp.http.X-Cache = "HIT"; } else { set resp.http.X-Cache = "MISS"; } }
`

func varnish() Service {
	return Service{
		Name: "varnish", Doc: "HTTP cache that compiles its configuration", Packages: []string{"varnish", "gcc", "libc6-dev"},
		Args: []string{
			"/usr/sbin/varnishd", "-F", "-a", "127.0.0.1:80", "-f", "/etc/varnish/test.vcl", "-s", "malloc,8m", "-T", "127.0.0.1:6082",
			"-S", "/etc/varnish/test-secret", "-n", "/run/varnish",
		},
		Dirs:  []Dir{{Path: "/run/varnish", Owner: "varnish"}},
		Files: []File{{Path: "/etc/varnish/test.vcl", Text: varnishVCL}, {Path: "/etc/varnish/test-secret", Text: "secret\n", Owner: "vcache", Mode: 0o640}},
		Ready: func(ctx context.Context, i *Instance) error { return i.varnishLoad(ctx, 1) },
		Ops: []Op{
			{Name: "load", Doc: "pages, from the origin and from the cache", Do: func(ctx context.Context, i *Instance) error { return i.varnishLoad(ctx, 30) }},
			{Name: "purge", Rare: true, Doc: "PURGE of a cached page", Do: func(ctx context.Context, i *Instance) error {
				return i.withOrigin(ctx, "127.0.0.1:8088", func() error {
					return errors.Join(i.get(ctx, "http://127.0.0.1/p", "hello"), i.expect(ctx, "PURGE", "http://127.0.0.1/p", nil, http.StatusOK, "Purged"))
				})
			}},
			{Name: "ban", Rare: true, Doc: "a ban through the admin port", Do: func(ctx context.Context, i *Instance) error {
				_, err := i.varnishAdmin(ctx, "ban", "req.url", "~", "/a")
				if err != nil {
					return err
				}
				list, err := i.varnishAdmin(ctx, "ban.list")
				if !strings.Contains(list, "req.url ~ /a") {
					err = errors.Join(err, fmt.Errorf("the bans are %q", list))
				}
				return err
			}},
			{Name: "reload", Rare: true, Doc: "a changed configuration is compiled, loaded and used", Do: varnishReload},
			{Name: "worker-respawn", Rare: true, Doc: "the cache process is killed", Do: func(ctx context.Context, i *Instance) error {
				if err := i.KillChild(ctx, "varnishd", unix.SIGKILL); err != nil {
					return err
				}
				return Eventually(ctx, 20*time.Second, func() error { return i.varnishLoad(ctx, 1) })
			}},
			{Name: "memory-growth", Rare: true, Doc: "more is cached than there is room for", Do: func(ctx context.Context, i *Instance) error {
				return i.withOrigin(ctx, "127.0.0.1:8088", func() error {
					for n := range 10 {
						if err := i.get(ctx, fmt.Sprintf("http://127.0.0.1/large.bin?%d", n), ""); err != nil {
							return err
						}
					}
					return nil
				})
			}},
		},
	}
}

func (i *Instance) varnishAdmin(ctx context.Context, args ...string) (string, error) {
	return i.Exec(ctx, append([]string{"varnishadm", "-T", "127.0.0.1:6082", "-S", i.Path("/etc/varnish/test-secret")}, args...)...)
}

func (i *Instance) varnishLoad(ctx context.Context, times int) error {
	return i.withOrigin(ctx, "127.0.0.1:8088", func() error {
		for n := range times {
			if err := errors.Join(i.get(ctx, "http://127.0.0.1/a", "hello"), i.get(ctx, fmt.Sprintf("http://127.0.0.1/b%d", n), "hello")); err != nil {
				return err
			}
		}
		return nil
	})
}

func varnishReload(ctx context.Context, i *Instance) error {
	version := fmt.Sprintf("v%d", time.Now().UnixNano())
	if err := i.rewrite("/etc/varnish/test.vcl", strings.ReplaceAll(varnishVCL, `"one"`, `"`+version+`"`)); err != nil {
		return err
	}
	for _, args := range [][]string{{"vcl.load", version, "/etc/varnish/test.vcl"}, {"vcl.use", version}} {
		if _, err := i.varnishAdmin(ctx, args...); err != nil {
			return err
		}
	}
	return i.withOrigin(ctx, "127.0.0.1:8088", func() error {
		_, header, _, err := i.request(ctx, http.MethodGet, "http://127.0.0.1/a", nil)
		if got := header.Get("X-Version"); err == nil && got != version {
			err = fmt.Errorf("X-Version is %q, want %q", got, version)
		}
		return err
	})
}
