// SPDX-License-Identifier: Apache-2.0

package services

import (
	"net/http"

	"golang.org/x/sys/unix"
)

const rackApp = `run lambda { |env|
  body = env["rack.input"].read
  text = "first version #{body.size} "
  text << ` + "`expr 40 + 2`" + ` if env["PATH_INFO"] == "/spawn"
  [200, { "Content-Type" => "text/plain" }, [text]]
}
`

const pumaConf = `workers 2
threads 1, 3
bind "tcp://127.0.0.1:8000"
environment "production"
pidfile "/run/puma.pid"
stdout_redirect "/var/log/puma/out.log", "/var/log/puma/err.log", true
log_requests
worker_timeout 10
activate_control_app "tcp://127.0.0.1:9293", { auth_token: "word" }
`

func puma() Service {
	const base = "http://127.0.0.1:8000/"
	const control = "http://127.0.0.1:9293/"
	return Service{
		Name: "puma", Doc: "Ruby application server with two workers", Packages: []string{"puma"},
		Args:  []string{"/usr/bin/puma", "-C", "/srv/app/puma.rb", "/srv/app/config.ru"},
		Dirs:  []Dir{{Path: "/var/log/puma"}},
		Files: []File{{Path: "/srv/app/puma.rb", Text: pumaConf}, {Path: "/srv/app/config.ru", Text: rackApp}},
		Logs:  []string{"/var/log/puma/out.log", "/var/log/puma/err.log"}, Ready: page(base, "first"),
		Ops: []Op{
			{Name: "load", Doc: "requests with and without a body", Do: repeat(50, page(base, "version"), answer(http.MethodPost, base, []byte("body"), 200, "version 4"))},
			{Name: "phased-restart", Rare: true, Doc: "the application is changed, SIGUSR1 replaces the workers", Do: all(
				changed("/srv/app/config.ru", "version", "version or second version"), signal(unix.SIGUSR1), eventually(page(base, "second")))},
			{Name: "scale", Rare: true, Doc: "a worker more, and one less (SIGTTIN, SIGTTOU)", Do: all(children("puma: cluster worker", 2),
				signal(unix.SIGTTIN), children("puma: cluster worker", 3), signal(unix.SIGTTOU), children("puma: cluster worker", 2))},
			{Name: "worker-respawn", Rare: true, Doc: "a worker is killed", Do: all(killed("puma: cluster worker", unix.SIGKILL), eventually(page(base, "version")))},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGHUP", Do: rotation("/var/log/puma/out.log", unix.SIGHUP, page(base, "version"))},
			{Name: "control", Rare: true, Doc: "statistics and a garbage collection over the control server", Do: all(
				page(control+"stats?token=word", "booted_workers"), page(control+"gc?token=word", "ok"))},
			{Name: "spawn", Rare: true, Doc: "another program is run", Do: page(base+"spawn", "42")},
			{Name: "restart", Rare: true, Doc: "SIGUSR2 executes puma anew", Do: all(
				changed("/srv/app/config.ru", "version", "version or third version"), signal(unix.SIGUSR2), eventually(page(base, "third")), children("puma: cluster worker", 2))},
		},
	}
}
