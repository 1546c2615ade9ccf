// SPDX-License-Identifier: Apache-2.0

package services

import (
	"strings"

	"golang.org/x/sys/unix"
)

// mail servers.
func mail() []Service { return []Service{postfix(), dovecot()} }

const postfixMain = `compatibility_level = 3.6
myhostname = mail.test
mydestination = mail.test, localhost
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps = hash:/etc/postfix/aliases
alias_database = hash:/etc/postfix/aliases
transport_maps = hash:/etc/postfix/transport
maillog_file = /var/log/postfix.log
smtpd_tls_cert_file = /etc/postfix/cert.pem
smtpd_tls_key_file = /etc/postfix/key.pem
smtpd_tls_security_level = may
smtpd_banner = first ESMTP
message_size_limit = 20000000
minimal_backoff_time = 600s
local_recipient_maps =
`

// postfixMaster is Debian's, without what is not used here, and without chroot, which does not set up its own files.
const postfixMaster = `smtp inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// letter is sent by SMTP.
func letter(to, text string) do {
	return converse("tcp", "127.0.0.1:25", step{"", "ESMTP"}, step{"EHLO client.test\r\n", "250 "}, step{"MAIL FROM:<root@mail.test>\r\n", "250 "},
		step{"RCPT TO:<" + to + ">\r\n", "250 "}, step{"DATA\r\n", "354 "}, step{"Subject: a letter\r\n\r\n" + text + "\r\n.\r\n", "250 "}, step{"QUIT\r\n", "221 "})
}

func postfix() Service {
	cert, key := certificate(1)
	deliver := func(text string) do { return all(letter("games@mail.test", text), contains("/var/mail/games", text)) }
	return Service{
		Name: "postfix", Doc: "mail server that delivers locally", Packages: []string{"postfix", "openssl"},
		Args: []string{"/usr/sbin/postfix", "start-fg"},
		Hide: []string{"/var/spool/postfix", "/var/lib/postfix", "/var/mail"},
		Dirs: []Dir{{Path: "/var/spool/postfix"}, {Path: "/var/lib/postfix", Owner: "postfix"}, {Path: "/var/mail", Owner: "root:mail", Mode: 0o1777}},
		Files: []File{
			{Path: "/etc/postfix/main.cf", Text: postfixMain}, {Path: "/etc/postfix/master.cf", Text: postfixMaster},
			{Path: "/etc/postfix/aliases", Text: "piped: \"|/bin/cat >/var/tmp/piped\"\nmany: games, root\n"},
			{Path: "/etc/postfix/transport", Text: "late.test smtp:[127.0.0.1]:2\n"},
			{Path: "/etc/postfix/cert.pem", Text: cert}, {Path: "/etc/postfix/key.pem", Text: key, Mode: 0o600},
		},
		Prepare: []Command{{Args: []string{"postalias", "/etc/postfix/aliases"}}, {Args: []string{"postmap", "/etc/postfix/transport"}}},
		Logs:    []string{"/var/log/postfix.log"}, Ready: converse("tcp", "127.0.0.1:25", step{"", "ESMTP"}, step{"QUIT\r\n", "221 "}),
		Ops: []Op{
			{Name: "load", Doc: "letters are delivered into a mailbox", Do: repeat(5, deliver("a text"))},
			{Name: "reload", Rare: true, Doc: "the banner is changed, SIGHUP", Do: all(changed("/etc/postfix/main.cf", "banner = first", "banner = first or second"),
				signal(unix.SIGHUP), eventually(converse("tcp", "127.0.0.1:25", step{"QUIT\r\n", "second ESMTP"})))},
			{Name: "pipe", Rare: true, Doc: "an alias pipes a letter to a command", Do: all(letter("piped@mail.test", "for a command"), contains("/var/tmp/piped", "for a command"))},
			{Name: "defer", Rare: true, Doc: "a letter that cannot be sent on is deferred, sent by a flush of the queue, and bounces", Do: all(
				letter("none@late.test", "for later"), contains("/var/log/postfix.log", "status=deferred"), admin("none@late.test", "postqueue", "-p"),
				written("/etc/postfix/transport", "late.test error:none today\n"), admin("", "postmap", "/etc/postfix/transport"),
				signal(unix.SIGHUP), eventually(all(admin("", "postqueue", "-f"), holds("/var/log/postfix.log", "status=bounced"))))},
			{Name: "large", Rare: true, Doc: "a letter of 4 MB", Do: all(letter("games@mail.test", strings.Repeat(strings.Repeat("x", 70)+"\r\n", 60000)+"large letter"), contains("/var/mail/games", "large letter"))},
			{Name: "tls", Rare: true, Doc: "a letter over STARTTLS", Do: clientInput("250 2.0.0 Ok",
				"MAIL FROM:<root@mail.test>\r\nrcpt to:<games@mail.test>\r\nDATA\r\n\r\nover TLS\r\n.\r\nQUIT\r\n",
				"openssl", "s_client", "-connect", "127.0.0.1:25", "-starttls", "smtp", "-quiet", "-crlf", "-ign_eof")},
			{Name: "log-rotation", Rare: true, Doc: "the log is renamed, SIGHUP", Do: rotation("/var/log/postfix.log", unix.SIGHUP, deliver("after rotation"))},
			{Name: "submit", Rare: true, Doc: "a letter is left in the queue's directory by sendmail", Do: all(
				admin("", "sh", "-c", "printf 'Subject: x\\n\\nby sendmail\\n' | sendmail games"), contains("/var/mail/games", "by sendmail"))},
		},
	}
}

const dovecotConf = `protocols = imap
listen = 127.0.0.1
base_dir = /run/dovecot
log_path = /var/log/dovecot/log
ssl = yes
ssl_cert = </etc/dovecot/cert.pem
ssl_key = </etc/dovecot/key.pem
disable_plaintext_auth = no
login_greeting = first greeting
mail_location = maildir:/srv/mail/%u
default_vsz_limit = 0
default_process_limit = 20
passdb {
  driver = passwd-file
  args = scheme=PLAIN /etc/dovecot/people
}
userdb {
  driver = static
  args = uid=mail gid=mail home=/srv/mail/%u
}
service auth {
  unix_listener auth-userdb {
    mode = 0600
  }
}
first_valid_uid = 1
service imap-login {
  service_count = 0
}
`

// imap is a session of one, after the login.
func imap(user string, steps ...step) do {
	return converse("tcp", "127.0.0.1:143", append([]step{{"", "* OK"}, {"a login " + user + " word\r\n", "a OK"}}, steps...)...)
}

func dovecot() Service {
	cert, key := certificate(1)
	cert2, key2 := certificate(2)
	read := imap("one", step{"b append INBOX {22}\r\n", "+ OK"}, step{"Subject: hello\r\n\r\ntext\r\n", "b OK"}, step{"c select INBOX\r\n", "c OK"},
		step{"d fetch * (body[])\r\n", "text"}, step{"e logout\r\n", "e OK"})
	doveadm := func(want string, args ...string) do {
		return admin(want, append([]string{"doveadm", "-c", "/etc/dovecot/whittle.conf"}, args...)...)
	}
	return Service{
		Name: "dovecot", Doc: "IMAP server", Packages: []string{"dovecot-imapd"},
		Args: []string{"/usr/sbin/dovecot", "-F", "-c", "/etc/dovecot/whittle.conf"},
		Dirs: []Dir{{Path: "/var/log/dovecot"}, {Path: "/srv/mail", Owner: "mail"}, {Path: "/run/dovecot"}},
		Files: []File{
			{Path: "/etc/dovecot/whittle.conf", Text: dovecotConf}, {Path: "/etc/dovecot/people", Text: "one:word\ntwo:word\n"},
			{Path: "/etc/dovecot/cert.pem", Text: cert}, {Path: "/etc/dovecot/key.pem", Text: key},
		},
		Logs: []string{"/var/log/dovecot/log"}, Ready: read,
		Ops: []Op{
			{Name: "load", Doc: "letters are put into a mailbox and read", Do: repeat(10, read)},
			{Name: "reload", Rare: true, Doc: "the greeting is changed, SIGHUP", Do: all(changed("/etc/dovecot/whittle.conf", "= first", "= first or second"),
				signal(unix.SIGHUP), eventually(converse("tcp", "127.0.0.1:143", step{"a logout\r\n", "second greeting"})))},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGUSR1", Do: rotation("/var/log/dovecot/log", unix.SIGUSR1, read)},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate, SIGHUP", Do: all(served("127.0.0.1:993", 1), written("/etc/dovecot/cert.pem", cert2),
				written("/etc/dovecot/key.pem", key2), signal(unix.SIGHUP), served("127.0.0.1:993", 2))},
			{Name: "folders", Rare: true, Doc: "folders are made, filled, searched, expunged and removed", Do: imap("two", step{"b create f\r\n", "b OK"},
				step{"c append f {6}\r\n", "+ OK"}, step{"x: y\r\n\r\n", "c OK"}, step{"d rename f g\r\n", "d OK"}, step{"e select g\r\n", "e OK"},
				step{"f search text y\r\n", "f OK"}, step{"g store 1 +flags \\Deleted\r\n", "g OK"}, step{"h expunge\r\n", "h OK"},
				step{"i close\r\n", "i OK"}, step{"j delete g\r\n", "j OK"})},
			{Name: "idle", Rare: true, Doc: "a client waits for letters (inotify)", Do: imap("two", step{"b select INBOX\r\n", "b OK"}, step{"c idle\r\n", "+ idling"},
				step{"DONE\r\n", "c OK"})},
			{Name: "who", Rare: true, Doc: "doveadm asks who is there, and empties the cache of passwords", Do: all(doveadm("", "who"), doveadm("", "auth", "cache", "flush"), doveadm("imap", "service", "status"))},
		},
	}
}
