// SPDX-License-Identifier: Apache-2.0

package main

// startsProgram are operations that start a program which was never seen to run, or make code: the same calls, with the same
// origin, that an intruder makes who has found a command injection or an overflow. They are for a person to allow, or for a
// learning time that has them; they are counted apart. They are here for what they do, and not for what became of them, though
// some of that was known when they were put down.
var startsProgram = map[string]string{
	"apache2/cgi":             "a script",
	"apache2/piped-log":       "rotatelogs",
	"haproxy/reload":          "haproxy itself, anew",
	"varnish/reload":          "a compiler",
	"php-fpm/reload":          "php-fpm itself, anew",
	"php-fpm/exec":            "a shell",
	"php-fpm/mail":            "sendmail",
	"lighttpd/cgi":            "a script",
	"lighttpd/large-upload":   "a script",
	"postgresql/copy-program": "a shell",
	"postgresql/jit":          "code of its own making (LLVM)",
	"http.server/cgi":         "a script",
	"gunicorn/upgrade":        "gunicorn itself, anew",
	"node/spawn":              "another program",
	"puma/spawn":              "another program",
	"puma/restart":            "puma itself, anew",
	"java/spawn":              "another program",
	"postfix/pipe":            "a command",
	"postfix/defer":           "the bounce daemon, and the client that sends",
	"postfix/tls":             "the TLS session daemon",
	"postfix/submit":          "the pickup's cleanup, from the queue's directory",
	"sshd/reload":             "sshd itself, anew",
	"sshd/sftp":               "the sftp server",
	"sshd/terminal":           "a shell",
	"rsyncd/hook":             "a command",
	"git-daemon/archive":      "git archive, and a compressor",
	"git-daemon/gc":           "git gc",
	"git-daemon/hook":         "a hook",
	"build/parallel":          "a job: rm, and make's own jobs",
	"build/lto":               "a job: the link-time optimizer",
	"build/static":            "a job: ar, ranlib and strip",
	"build/coverage":          "a job: a program that was just compiled, and gcov",
	"build/fail":              "a job: a compiler that fails",
	"build/dist":              "a job: tar and a compressor",
	"archive/xz":              "a job: xz",
	"archive/zstd":            "a job: zstd",
	"archive/incremental":     "a job: tar, find and others",
	"archive/sparse":          "a job: truncate, cp and others",
	"archive/sort":            "a job: sort, split and comm",
	"archive/sync":            "a job: dd and sync",
	"sqlite/dump":             "a job: gzip",
	"rsyslog/command":         "a program",
}

// opensWay are operations that make a way to the network which was not there: to another server, or a port that was not
// listened on. An intruder's first step is the same, so where the service made none while it ran, a person is asked.
var opensWay = map[string]string{
	"redis/failover":   "to its new master",
	"redis/config":     "a second address to listen on",
	"php-fpm/fetch":    "to another server",
	"caddy/proxy":      "to another server",
	"caddy/reload":     "listens anew",
	"caddy/tls-reload": "listens anew",
	"dnsmasq/tftp":     "a port for the transfer",
	"sshd/forward":     "to where the client wants",
	"rsyslog/queue":    "to another host",
	"postfix/defer":    "to another mail server",
	"java/lookup":      "to a name server",
	"node/threadpool":  "to a name server",
	"node/inspector":   "a port for the inspector",
	"tinyproxy/reload": "to another port",
	"tinyproxy/lookup": "to a server by its name",
}

// byNature is why an operation is for a person whatever becomes of it here, or "".
func byNature(name string) string {
	if what := startsProgram[name]; what != "" {
		return "starts " + what
	}
	if what := opensWay[name]; what != "" {
		return "opens a way: " + what
	}
	return ""
}
