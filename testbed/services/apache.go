// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const apacheConf = `ServerRoot /etc/apache2
ServerName localhost
PidFile /run/apache2/apache2.pid
DefaultRuntimeDir /run/apache2
User www-data
Group www-data
Listen 80
Listen 443
%s
StartServers 2
MinSpareThreads 5
MaxSpareThreads 20
ThreadsPerChild 10
ServerLimit 4
MaxRequestWorkers 40
ErrorLog /var/log/apache2/error.log
LogFormat "%%h %%t \"%%r\" %%>s" common
CustomLog /var/log/apache2/access.log common
EnableSendfile On
TypesConfig /etc/mime.types
DocumentRoot /srv/www
Header set X-Version "one"
DavLockDB /run/apache2/davlock
ScriptSock /run/apache2/cgisock
ScriptAlias /cgi/ /srv/cgi/
<Directory /srv>
	Require all granted
</Directory>
<Directory /srv/www/dav>
	Dav On
</Directory>
<Location /zipped>
	SetOutputFilter DEFLATE
</Location>
<VirtualHost *:443>
	SSLEngine on
	SSLCertificateFile /etc/apache2/cert.pem
	SSLCertificateKeyFile /etc/apache2/key.pem
</VirtualHost>
# limits
`

func apache() Service {
	var modules strings.Builder
	for name := range strings.FieldsSeq("mpm_event authz_core alias dir headers mime dav dav_fs cgid deflate filter socache_shmcb ssl") {
		fmt.Fprintf(&modules, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", name, name)
	}
	cert, key := certificate(1)
	log := func(ctx context.Context, i *Instance) error {
		return i.rotated(ctx, "/var/log/apache2/access.log", func() error { return i.Signal(unix.SIGUSR1) },
			func() error { return i.get(ctx, "http://127.0.0.1/", "hello") })
	}
	return Service{
		Name: "apache2", Doc: "web server with threads, CGI, WebDAV and TLS", Packages: []string{"apache2", "apache2-utils"},
		Args: []string{"/usr/sbin/apache2", "-D", "FOREGROUND"},
		Hide: []string{"/var/log/apache2"}, Logs: []string{"/var/log/apache2/error.log"},
		Dirs: []Dir{
			{Path: "/var/log/apache2"}, {Path: "/run/apache2", Owner: "www-data"}, {Path: "/srv/www"},
			{Path: "/srv/www/dav", Owner: "www-data"}, {Path: "/srv/cgi"},
		},
		Files: []File{
			{Path: "/etc/apache2/apache2.conf", Text: fmt.Sprintf(apacheConf, modules.String())},
			{Path: "/srv/www/index.html", Text: "<p>hello\n"}, {Path: "/srv/www/zipped", Text: strings.Repeat("zip ", 1000)},
			{Path: "/srv/www/large.bin", Text: string(large(8 << 20))},
			{Path: "/srv/cgi/date", Text: "#!/bin/sh\necho 'Content-Type: text/plain'\necho\necho today is $(date)\n", Mode: 0o755},
			{Path: "/etc/apache2/cert.pem", Text: cert}, {Path: "/etc/apache2/key.pem", Text: key, Mode: 0o600},
		},
		Ready: getReady("http://127.0.0.1/", "hello"),
		Ops: []Op{
			{Name: "load", Doc: "small pages, compressed ones, what is not there, TLS, a large file", Do: apacheLoad},
			{Name: "graceful", Rare: true, Doc: "SIGUSR1 with a changed configuration", Do: apacheReload(unix.SIGUSR1)},
			{Name: "restart", Rare: true, Doc: "SIGHUP with a changed configuration", Do: apacheReload(unix.SIGHUP)},
			{Name: "log-rotate", Rare: true, Doc: "the logs are renamed, SIGUSR1", Do: log},
			{Name: "worker-respawn", Rare: true, Doc: "a worker is killed", Do: func(ctx context.Context, i *Instance) error {
				return errors.Join(i.KillChild(ctx, "apache2", unix.SIGKILL), i.get(ctx, "http://127.0.0.1/", "hello"))
			}},
			{Name: "large-upload", Rare: true, Doc: "PUT of 24 MB, downloaded by sendfile, deleted", Do: apacheUpload},
			{Name: "cgi", Rare: true, Doc: "a script is run", Do: func(ctx context.Context, i *Instance) error {
				return i.get(ctx, "http://127.0.0.1/cgi/date", "today is")
			}},
			{Name: "piped-log", Rare: true, Doc: "logs go through rotatelogs, SIGUSR1", Do: apachePiped},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate, SIGUSR1", Do: func(ctx context.Context, i *Instance) error {
				cert, key := certificate(2)
				err := errors.Join(i.rewrite("/etc/apache2/cert.pem", cert), i.rewrite("/etc/apache2/key.pem", key), i.Signal(unix.SIGUSR1))
				return errors.Join(err, i.awaitSerial(ctx, "127.0.0.1:443", 2))
			}},
			{Name: "limits", Rare: true, Doc: "CoreDumpDirectory and RLimitNPROC, SIGUSR1", Do: func(ctx context.Context, i *Instance) error {
				if err := i.replace("/etc/apache2/apache2.conf", "# limits", "CoreDumpDirectory /tmp\nRLimitCPU 20 30\nHeader set X-Limits yes"); err != nil {
					return err
				}
				return i.awaitHeader(ctx, unix.SIGUSR1, "X-Limits", "yes")
			}},
		},
	}
}

func apacheLoad(ctx context.Context, i *Instance) error {
	for range 20 {
		err := errors.Join(
			i.get(ctx, "http://127.0.0.1/", "hello"), i.get(ctx, "http://127.0.0.1/zipped", "zip"),
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

// awaitHeader sends a signal and waits until / is served with a header.
func (i *Instance) awaitHeader(ctx context.Context, s unix.Signal, name, want string) error {
	if err := i.Signal(s); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		_, header, _, err := i.request(ctx, http.MethodGet, "http://127.0.0.1/", nil)
		if got := header.Get(name); err == nil && got != want {
			err = fmt.Errorf("%s is %q, want %q: the old configuration is still served", name, got, want)
		}
		return err
	})
}

func apacheReload(s unix.Signal) func(context.Context, *Instance) error {
	return func(ctx context.Context, i *Instance) error {
		word := fmt.Sprint(time.Now().UnixNano())
		text, err := os.ReadFile(i.Path("/etc/apache2/apache2.conf"))
		if err != nil {
			return err
		}
		if err := i.rewrite("/etc/apache2/apache2.conf", string(text)+"Header set X-Version \""+word+"\"\n"); err != nil {
			return err
		}
		return i.awaitHeader(ctx, s, "X-Version", word)
	}
}

func apacheUpload(ctx context.Context, i *Instance) error {
	body := large(24 << 20)
	const url = "http://127.0.0.1/dav/upload.bin"
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

func apachePiped(ctx context.Context, i *Instance) error {
	piped := `CustomLog "|/usr/bin/rotatelogs /var/log/apache2/piped.log 86400" common`
	if err := i.replace("/etc/apache2/apache2.conf", "CustomLog /var/log/apache2/access.log common", piped); err != nil {
		return err
	}
	if err := i.Signal(unix.SIGUSR1); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		if err := i.get(ctx, "http://127.0.0.1/", "hello"); err != nil {
			return err
		}
		entries, err := os.ReadDir(i.Path("/var/log/apache2"))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "piped.log.") {
				return nil
			}
		}
		return errors.New("there is no piped.log")
	})
}
