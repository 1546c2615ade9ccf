// SPDX-License-Identifier: Apache-2.0

package services

import (
	"golang.org/x/sys/unix"
)

// relays pass on what others say (requests, connections, log lines) among other things.
func relays() []Service { return []Service{caddy(), stunnel(), tinyproxy(), rsyslog()} }

const stunnelConf = `foreground = yes
pid =
output = /var/log/stunnel/log
debug = notice
# It keeps no capability: the ports are high, so that it can bind them again.
setuid = stunnel4
setgid = stunnel4
[echo]
accept = 127.0.0.1:1443
cert = /etc/stunnel/cert.pem
key = /etc/stunnel/key.pem
exec = /bin/cat
execArgs = cat
[proxy]
accept = 127.0.0.1:1444
cert = /etc/stunnel/cert.pem
key = /etc/stunnel/key.pem
connect = 127.0.0.1:1080
[client]
client = yes
accept = 127.0.0.1:1080
connect = 127.0.0.1:1443
`

func stunnel() Service {
	cert, key := certificate(1)
	cert2, key2 := certificate(2)
	// The clear text goes through the client's side, and comes back from the server's.
	plain := converse("tcp", "127.0.0.1:1080", step{"hello\n", "hello\n"})
	return Service{
		Name: "stunnel", Doc: "TLS before and behind programs that have none", Packages: []string{"stunnel4", "openssl"},
		Args: []string{"/usr/bin/stunnel4", "/etc/stunnel/whittle.conf"},
		Dirs: []Dir{{Path: "/var/log/stunnel", Owner: "stunnel4"}},
		Files: []File{
			{Path: "/etc/stunnel/whittle.conf", Text: stunnelConf},
			{Path: "/etc/stunnel/cert.pem", Text: cert, Owner: "stunnel4"}, {Path: "/etc/stunnel/key.pem", Text: key, Owner: "stunnel4", Mode: 0o600},
		},
		Logs: []string{"/var/log/stunnel/log"}, Ready: plain,
		Ops: []Op{
			{Name: "load", Doc: "connections through both sides to a program", Do: repeat(15, plain)},
			{Name: "twice", Rare: true, Doc: "TLS within TLS", Do: clientInput("again", "again\n", "sh", "-c",
				"(cat; sleep 1) | openssl s_client -connect 127.0.0.1:1444 -quiet -no_ign_eof 2>&1")},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate, SIGHUP", Do: all(served("127.0.0.1:1443", 1), written("/etc/stunnel/cert.pem", cert2),
				written("/etc/stunnel/key.pem", key2), signal(unix.SIGHUP), served("127.0.0.1:1443", 2))},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGUSR1", Do: rotation("/var/log/stunnel/log", unix.SIGUSR1, plain)},
			{Name: "connections", Rare: true, Doc: "SIGUSR2 writes the connections into the log", Do: all(signal(unix.SIGUSR2), contains("/var/log/stunnel/log", "Active connection"))},
		},
	}
}

// behind runs a server for a while, and makes ten requests to it through the proxy.
const behind = `d=$(mktemp -d); echo "<p>hello" >"$d/index.html"
busybox httpd -f -p 127.0.0.1:81 -h "$d" & trap 'kill $!; rm -rf "$d"' EXIT
for n in 1 2 3 4 5 6 7 8 9 10; do
	curl -sS --max-time 10 --retry 5 --retry-connrefused -x http://127.0.0.1:8888 $1 || exit 1
done
`

const tinyproxyConf = `User tinyproxy
Group tinyproxy
Port 8888
Listen 127.0.0.1
Timeout 20
LogFile "/var/log/tinyproxy/tinyproxy.log"
LogLevel Info
StatHost "tinyproxy.stats"
MaxClients 40
Allow 127.0.0.1
ConnectPort 81
`

func tinyproxy() Service {
	const address = "127.0.0.1:8888"
	direct := converse("tcp", address, step{"GET http://tinyproxy.stats/ HTTP/1.0\r\nHost: tinyproxy.stats\r\n\r\n", "Number of"})
	through := func(args string) do { return client("<p>hello", "sh", "-c", behind, "sh", args) }
	return Service{
		Name: "tinyproxy", Doc: "HTTP proxy with a thread for each client", Packages: []string{"tinyproxy", "busybox-static", "curl"},
		Args:  []string{"/usr/bin/tinyproxy", "-d", "-c", "/etc/tinyproxy/whittle.conf"},
		Dirs:  []Dir{{Path: "/var/log/tinyproxy", Owner: "tinyproxy"}, {Path: "/run/tinyproxy", Owner: "tinyproxy"}},
		Files: []File{{Path: "/etc/tinyproxy/whittle.conf", Text: tinyproxyConf}},
		Logs:  []string{"/var/log/tinyproxy/tinyproxy.log"}, Ready: direct,
		Ops: []Op{
			{Name: "load", Doc: "requests, tunnels and statistics", Do: repeat(2, repeat(10, direct), through("http://127.0.0.1:81/"), through("-p http://127.0.0.1:81/"))},
			{Name: "reload", Rare: true, Doc: "another port may be tunnelled to, SIGUSR1", Do: all(
				converse("tcp", address, step{"CONNECT 127.0.0.1:9999 HTTP/1.0\r\n\r\n", " 403 "}),
				changed("/etc/tinyproxy/whittle.conf", "ConnectPort 81", "ConnectPort 81\nConnectPort 9999"), signal(unix.SIGUSR1),
				eventually(converse("tcp", address, step{"CONNECT 127.0.0.1:9999 HTTP/1.0\r\n\r\n", " 50"})))},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGUSR1", Do: rotation("/var/log/tinyproxy/tinyproxy.log", unix.SIGUSR1, direct)},
			{Name: "lookup", Rare: true, Doc: "a request for a server by its name", Do: through("http://localhost:81/")},
			{Name: "upload", Rare: true, Doc: "a request with a body of 1 MB", Do: converse("tcp", address,
				step{"POST http://127.0.0.1:82/ HTTP/1.0\r\nContent-Length: 1000000\r\n\r\n" + string(large(1000000)), " 500 "})},
			{Name: "filter", Rare: true, Doc: "a filter by names is put in place, SIGUSR1", Do: all(written("/etc/tinyproxy/filter", "forbidden\n"),
				changed("/etc/tinyproxy/whittle.conf", "MaxClients 40", "MaxClients 40\nFilter \"/etc/tinyproxy/filter\""), signal(unix.SIGUSR1),
				eventually(converse("tcp", address, step{"GET http://forbidden.test/ HTTP/1.0\r\n\r\n", "filtered"})))},
		},
	}
}

const rsyslogConf = `module(load="imuxsock")
module(load="imudp")
module(load="imtcp")
module(load="omprog")
input(type="imudp" address="127.0.0.1" port="514")
input(type="imtcp" address="127.0.0.1" port="514")
global(workDirectory="/var/spool/rsyslog")
template(name="byname" type="string" string="/var/log/by/%programname%.log")
:programname, isequal, "dynamic" action(type="omfile" dynaFile="byname" createDirs="on")
:programname, isequal, "command" action(type="omprog" binary="/usr/bin/tee /var/log/program")
:programname, isequal, "remote" action(type="omfwd" target="127.0.0.1" port="2" protocol="tcp" action.resumeRetryCount="-1" action.resumeInterval="1"
	queue.type="LinkedList" queue.filename="remote" queue.size="100" queue.lowWatermark="10" queue.highWatermark="20" queue.saveOnShutdown="on" queue.timeoutEnqueue="100")
*.* action(type="omfile" file="/var/log/all.log" sync="on")
`

func rsyslog() Service {
	said := func(network, address, program, text string) do {
		line := "<13>Nov 22 05:00:00 host " + program + ": " + text + "\n"
		if network == "unixgram" {
			line = "<13>Nov 22 05:00:00 " + program + ": " + text
		}
		return converse(network, address, step{send: line})
	}
	logged := all(said("tcp", "127.0.0.1:514", "some", "over tcp"), said("udp", "127.0.0.1:514", "some", "over udp"), said("unixgram", "/dev/log", "some", "over unix"),
		contains("/var/log/all.log", "over tcp"), contains("/var/log/all.log", "over udp"), contains("/var/log/all.log", "over unix"))
	return Service{
		Name: "rsyslog", Doc: "system log, from sockets into files", Packages: []string{"rsyslog"},
		Args:  []string{"/usr/sbin/rsyslogd", "-n", "-i", "/run/rsyslogd.pid", "-f", "/etc/rsyslog.whittle"},
		Hide:  []string{"/var/log", "/var/spool/rsyslog"},
		Dirs:  []Dir{{Path: "/var/log"}, {Path: "/var/spool/rsyslog"}},
		Files: []File{{Path: "/etc/rsyslog.whittle", Text: rsyslogConf}},
		Ready: logged,
		Ops: []Op{
			{Name: "load", Doc: "lines from UDP, TCP and the unix socket", Do: repeat(20, logged)},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGHUP", Do: all(rotation("/var/log/all.log", unix.SIGHUP, said("tcp", "127.0.0.1:514", "some", "again")), logged)},
			{Name: "dynamic", Rare: true, Doc: "a file and its directory are made for a program", Do: all(said("tcp", "127.0.0.1:514", "dynamic", "first"), contains("/var/log/by/dynamic.log", "first"))},
			{Name: "command", Rare: true, Doc: "lines are piped to a program", Do: all(said("tcp", "127.0.0.1:514", "command", "to a command"), contains("/var/log/program", "to a command"))},
			{Name: "queue", Rare: true, Doc: "lines for a host that is away are queued, and spill to the disk", Do: all(
				repeat(80, said("udp", "127.0.0.1:514", "remote", "for another host")), eventually(admin("remote", "ls", "/var/spool/rsyslog")))},
		},
	}
}
