// SPDX-License-Identifier: Apache-2.0

package services

import (
	"golang.org/x/sys/unix"
)

// names are servers of the domain name system.
func names() []Service { return []Service{named(), unbound(), dnsmasq()} }

// dig asks a server.
func dig(want string, args ...string) do {
	return client(want, append([]string{"dig", "@127.0.0.1", "+time=5", "+tries=2"}, args...)...)
}

const namedConf = `key "rndc-key" { algorithm hmac-sha256; secret "d2hpdHRsZSB3aGl0dGxlIHdoaXR0bGU="; };
controls { inet 127.0.0.1 port 953 allow { 127.0.0.1; } keys { "rndc-key"; }; };
options {
	directory "/var/cache/bind";
	listen-on { any; };
	recursion no;
	dnssec-validation no;
	allow-new-zones yes;
};
logging {
	channel out { file "/var/log/named/queries.log" versions 3 size 2k; severity info; print-time yes; };
	category queries { out; };
};
zone "example.test" { type master; file "/var/lib/bind/example.test"; };
zone "dynamic.test" { type master; file "/var/lib/bind/dynamic.test"; allow-update { key "rndc-key"; }; };
`

const zone = `$TTL 60
@ SOA ns.example.test. root.example.test. 1 3600 600 86400 60
@ NS ns.example.test.
@ MX 10 mail
ns A 127.0.0.1
mail A 127.0.0.2
www A 127.0.0.3
txt TXT "a text"
`

func rndc(args ...string) do {
	return client("", append([]string{"rndc", "-c", "{ROOT}/etc/bind/rndc.conf"}, args...)...)
}

func named() Service {
	query := dig("127.0.0.3", "+short", "www.example.test")
	return Service{
		Name: "named", Doc: "name server (BIND 9) of a static and a dynamic zone",
		Packages: []string{"bind9", "bind9-dnsutils", "bind9-utils"},
		Args:     []string{"/usr/sbin/named", "-f", "-u", "bind", "-c", "/etc/bind/whittle.conf"},
		Dirs: []Dir{
			{Path: "/var/log/named", Owner: "bind"}, {Path: "/run/named", Owner: "bind"},
			{Path: "/var/lib/bind", Owner: "bind"}, {Path: "/var/cache/bind", Owner: "bind"},
		},
		Files: []File{
			{Path: "/etc/bind/whittle.conf", Text: namedConf},
			{Path: "/etc/bind/rndc.conf", Text: "key \"rndc-key\" { algorithm hmac-sha256; secret \"d2hpdHRsZSB3aGl0dGxlIHdoaXR0bGU=\"; };\noptions { default-key \"rndc-key\"; default-server 127.0.0.1; };\n"},
			{Path: "/var/lib/bind/example.test", Text: zone, Owner: "bind"},
			{Path: "/var/lib/bind/dynamic.test", Text: zone, Owner: "bind"},
			{Path: "/var/lib/bind/added.test", Text: zone, Owner: "bind"},
		},
		Ready: query,
		Ops: []Op{
			{Name: "load", Doc: "queries over UDP and TCP, of what is there and what is not", Do: repeat(8, query,
				dig("mail", "+short", "MX", "example.test"), dig("a text", "+tcp", "TXT", "txt.example.test"), dig("NXDOMAIN", "none.example.test"))},
			{Name: "reload", Rare: true, Doc: "a zone file is changed, rndc reload", Do: all(
				written("/var/lib/bind/example.test", zone+"new A 127.0.0.9\n"), changed("/var/lib/bind/example.test", "test. 1 3600", "test. 2 3600"),
				rndc("reload"), eventually(dig("127.0.0.9", "+short", "new.example.test")))},
			{Name: "dump", Rare: true, Doc: "rndc dumpdb writes the zones into a file", Do: all(
				rndc("dumpdb", "-zones"), contains("/var/cache/bind/named_dump.db", "Dump complete"))},
			{Name: "statistics", Rare: true, Doc: "rndc stats", Do: all(rndc("stats"), contains("/var/cache/bind/named.stats", "Incoming Requests"))},
			{Name: "update", Rare: true, Doc: "a dynamic update is journaled, and the zone written by rndc sync", Do: all(
				clientInput("", "server 127.0.0.1\nupdate add late.dynamic.test 60 A 127.0.0.4\nsend\n",
					"nsupdate", "-y", "hmac-sha256:rndc-key:d2hpdHRsZSB3aGl0dGxlIHdoaXR0bGU="),
				dig("127.0.0.4", "+short", "late.dynamic.test"), rndc("sync", "-clean"), contains("/var/lib/bind/dynamic.test", "late"))},
			{Name: "log-rotation", Rare: true, Doc: "queries are logged until the log is full, and becomes .0", Do: all(
				rndc("querylog", "on"), repeat(30, query), contains("/var/log/named/queries.log.0", "www.example.test"), rndc("querylog", "off"))},
			{Name: "add-zone", Rare: true, Doc: "rndc addzone", Do: all(
				rndc("addzone", "added.test", `{ type master; file "/var/lib/bind/added.test"; };`), eventually(dig("127.0.0.3", "+short", "www.added.test")))},
			{Name: "transfer", Rare: true, Doc: "a zone is transferred", Do: dig("mail.example.test", "AXFR", "example.test")},
		},
	}
}

const unboundConf = `server:
	interface: 127.0.0.1
	interface: 127.0.0.1@853
	tls-service-key: /etc/unbound/key.pem
	tls-service-pem: /etc/unbound/cert.pem
	do-daemonize: no
	num-threads: 2
	chroot: ""
	username: unbound
	pidfile: ""
	use-syslog: no
	logfile: /var/log/unbound/unbound.log
	log-queries: yes
	module-config: "iterator"
	local-zone: example.test. static
	local-data: "www.example.test. A 127.0.0.3"
	local-data: "txt.example.test. TXT 'a text'"
	local-zone: test. static
remote-control:
	control-enable: yes
	control-interface: /run/unbound.ctl
`

func unbound() Service {
	cert, key := certificate(1)
	query := dig("127.0.0.3", "+short", "www.example.test")
	control := func(want string, args ...string) do {
		return admin(want, append([]string{"unbound-control", "-c", "/etc/unbound/whittle.conf"}, args...)...)
	}
	return Service{
		Name: "unbound", Doc: "resolver with local zones and TLS", Packages: []string{"unbound", "bind9-dnsutils"},
		Args: []string{"/usr/sbin/unbound", "-d", "-c", "/etc/unbound/whittle.conf"},
		Dirs: []Dir{{Path: "/var/log/unbound", Owner: "unbound"}},
		Files: []File{
			{Path: "/etc/unbound/whittle.conf", Text: unboundConf},
			{Path: "/etc/unbound/cert.pem", Text: cert}, {Path: "/etc/unbound/key.pem", Text: key},
		},
		Logs: []string{"/var/log/unbound/unbound.log"}, Ready: query,
		Ops: []Op{
			{Name: "load", Doc: "queries over UDP and TCP", Do: repeat(10, query, dig("a text", "+tcp", "TXT", "txt.example.test"), dig("NXDOMAIN", "none.test"))},
			{Name: "tls", Rare: true, Doc: "a query over TLS", Do: all(served("127.0.0.1:853", 1), dig("127.0.0.3", "+tls", "-p", "853", "+short", "www.example.test"))},
			{Name: "control-reload", Rare: true, Doc: "unbound-control reload with a new local name", Do: all(
				changed("/etc/unbound/whittle.conf", "\tlocal-zone: test. static", "\tlocal-data: \"first.example.test. A 127.0.0.8\"\n\tlocal-zone: test. static"),
				control("ok", "reload"), eventually(dig("127.0.0.8", "+short", "first.example.test")))},
			{Name: "reload", Rare: true, Doc: "SIGHUP with a new local name", Do: all(
				changed("/etc/unbound/whittle.conf", "\tlocal-zone: test. static", "\tlocal-data: \"new.example.test. A 127.0.0.9\"\n\tlocal-zone: test. static"),
				signal(unix.SIGHUP), eventually(dig("127.0.0.9", "+short", "new.example.test")))},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, unbound-control log_reopen", Do: all(
				admin("", "mv", "/var/log/unbound/unbound.log", "/var/log/unbound/unbound.log.1"), control("ok", "log_reopen"), query,
				contains("/var/log/unbound/unbound.log", "www.example.test"))},
			{Name: "dump", Rare: true, Doc: "dump_cache and statistics", Do: all(control("END_RRSET_CACHE", "dump_cache"), control("total.num.queries", "stats"))},
			{Name: "reconfigure", Rare: true, Doc: "a zone is added and removed while it runs", Do: all(
				control("ok", "local_data", "late.example.test", "A", "127.0.0.4"), dig("127.0.0.4", "+short", "late.example.test"),
				control("ok", "local_data_remove", "late.example.test"), control("ok", "verbosity", "3"), query, control("ok", "verbosity", "1"))},
		},
	}
}

func dnsmasq() Service {
	query := dig("127.0.0.3", "+short", "www.example.test")
	return Service{
		Name: "dnsmasq", Doc: "name server of a hosts file, with TFTP", Packages: []string{"dnsmasq-base", "bind9-dnsutils", "curl"},
		// It asks for CAP_NET_ADMIN whether it serves DHCP or not, and its images are run with it.
		ExtraCaps: []string{"CAP_NET_ADMIN"},
		Args: []string{"/usr/sbin/dnsmasq", "--keep-in-foreground", "--user=dnsmasq", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--addn-hosts=/etc/names",
			"--log-facility=/var/log/dnsmasq/log", "--log-queries", "--enable-tftp", "--tftp-root=/srv/tftp", "--pid-file", "--txt-record=txt.example.test,a text"},
		Dirs:  []Dir{{Path: "/var/log/dnsmasq", Owner: "dnsmasq"}},
		Files: []File{{Path: "/etc/names", Text: "127.0.0.3 www.example.test\n"}, {Path: "/srv/tftp/boot.img", Text: string(large(200<<10)) + "end of it"}},
		Ready: query,
		Ops: []Op{
			{Name: "load", Doc: "queries over UDP and TCP", Do: repeat(10, query, dig("a text", "+tcp", "TXT", "txt.example.test"), dig("REFUSED", "none.test"))},
			{Name: "reload", Rare: true, Doc: "the hosts file is changed, SIGHUP", Do: all(
				written("/etc/names", "127.0.0.3 www.example.test\n127.0.0.9 new.example.test\n"), signal(unix.SIGHUP), eventually(dig("127.0.0.9", "+short", "new.example.test")))},
			{Name: "statistics", Rare: true, Doc: "SIGUSR1 writes statistics into the log", Do: all(signal(unix.SIGUSR1), contains("/var/log/dnsmasq/log", "cache size"))},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGUSR2", Do: rotation("/var/log/dnsmasq/log", unix.SIGUSR2, query)},
			{Name: "tftp", Rare: true, Doc: "a file is fetched by TFTP", Do: client("end of it", "curl", "-s", "tftp://127.0.0.1/boot.img", "-o", "-")},
		},
	}
}
