// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// brokers are queues.
func brokers() []Service { return []Service{mosquitto(), beanstalkd(), nats()} }

const mosquittoConf = `user mosquitto
listener 1883 127.0.0.1
listener 8883 127.0.0.1
certfile /etc/mosquitto/certs/cert.pem
keyfile /etc/mosquitto/certs/key.pem
allow_anonymous false
password_file /etc/mosquitto/passwd
persistence true
persistence_location /var/lib/mosquitto/
autosave_interval 1800
log_dest file /var/log/mosquitto/mosquitto.log
log_type all
`

func mosquitto() Service {
	cert, key := certificate(1)
	cert2, key2 := certificate(2)
	as := func(user, what, topic string, more ...string) do {
		return client("", append([]string{what, "-h", "127.0.0.1", "-u", user, "-P", "word", "-t", topic}, more...)...)
	}
	exchange := all(as("one", "mosquitto_pub", "kept", "-r", "-q", "1", "-m", "a message"),
		client("a message", "mosquitto_sub", "-h", "127.0.0.1", "-u", "one", "-P", "word", "-t", "kept", "-C", "1", "-W", "10"))
	return Service{
		Name: "mosquitto", Doc: "MQTT broker with passwords, TLS and persistence", Packages: []string{"mosquitto", "mosquitto-clients"},
		Args: []string{"/usr/sbin/mosquitto", "-c", "/etc/mosquitto/whittle.conf"},
		Dirs: []Dir{{Path: "/var/log/mosquitto", Owner: "mosquitto"}, {Path: "/var/lib/mosquitto", Owner: "mosquitto"}},
		Files: []File{
			{Path: "/etc/mosquitto/whittle.conf", Text: mosquittoConf},
			{Path: "/etc/mosquitto/certs/cert.pem", Text: cert}, {Path: "/etc/mosquitto/certs/key.pem", Text: key, Owner: "mosquitto", Mode: 0o600},
		},
		Prepare: []Command{
			{Args: []string{"mosquitto_passwd", "-c", "-b", "/etc/mosquitto/passwd", "one", "word"}},
			{Args: []string{"chown", "mosquitto", "/etc/mosquitto/passwd"}},
		},
		Logs: []string{"/var/log/mosquitto/mosquitto.log"}, Ready: exchange,
		Ops: []Op{
			{Name: "load", Doc: "messages are published, kept and received", Do: repeat(10, exchange)},
			{Name: "reload", Rare: true, Doc: "a user is added to the passwords, SIGHUP", Do: all(
				admin("", "mosquitto_passwd", "-b", "/etc/mosquitto/passwd", "two", "word"), signal(unix.SIGHUP), eventually(as("two", "mosquitto_pub", "kept", "-m", "m")))},
			{Name: "save", Rare: true, Doc: "SIGUSR1 writes the database", Do: all(signal(unix.SIGUSR1), contains("/var/lib/mosquitto/mosquitto.db", "kept"))},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate, SIGHUP", Do: all(served("127.0.0.1:8883", 1), written("/etc/mosquitto/certs/cert.pem", cert2),
				written("/etc/mosquitto/certs/key.pem", key2), signal(unix.SIGHUP), served("127.0.0.1:8883", 2))},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGHUP", Do: rotation("/var/log/mosquitto/mosquitto.log", unix.SIGHUP, exchange)},
			{Name: "large", Rare: true, Doc: "a message of 2 MB", Do: func(ctx context.Context, i *Instance) error {
				_, err := i.ExecInput(ctx, string(large(2<<20)), "mosquitto_pub", "-h", "127.0.0.1", "-u", "one", "-P", "word", "-t", "large", "-r", "-q", "2", "-s")
				if err != nil {
					return err
				}
				got, err := i.Exec(ctx, "mosquitto_sub", "-h", "127.0.0.1", "-u", "one", "-P", "word", "-t", "large", "-C", "1", "-W", "10", "-N")
				if err == nil && got != string(large(2<<20)) {
					err = errors.New("the large message has been changed")
				}
				return err
			}},
		},
	}
}

// job of a size for beanstalkd.
func job(body string) string { return fmt.Sprintf("put 1 0 60 %d\r\n%s\r\n", len(body), body) }

func beanstalkd() Service {
	const address = "127.0.0.1:11300"
	var fill []step
	for range 40 {
		fill = append(fill, step{job(strings.Repeat("x", 4000)), "INSERTED"})
	}
	work := converse("tcp", address, step{job("a job"), "INSERTED"}, step{"peek-ready\r\n", "FOUND"}, step{"reserve\r\n", "RESERVED"}, step{"stats\r\n", "current-jobs-ready"})
	drain := func(ctx context.Context, i *Instance) error {
		conn, err := i.Dial(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		buf := make([]byte, 16<<10)
		for {
			if _, err := conn.Write([]byte("reserve-with-timeout 0\r\n")); err != nil {
				return err
			}
			var got []byte
			for !bytes.HasSuffix(got, []byte("\r\n")) || bytes.HasPrefix(got, []byte("RESERVED")) && bytes.Count(got, []byte("\r\n")) < 2 {
				n, err := conn.Read(buf)
				if err != nil {
					return err
				}
				got = append(got, buf[:n]...)
			}
			var id, size int
			if n, _ := fmt.Sscanf(string(got), "RESERVED %d %d", &id, &size); n < 2 {
				return wants("reserve", string(got), "TIMED_OUT", nil)
			}
			if _, err := fmt.Fprintf(conn, "delete %d\r\n", id); err != nil {
				return err
			}
			if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "DELETED\r\n" {
				return fmt.Errorf("delete answers %q: %w", buf[:n], err)
			}
		}
	}
	return Service{
		Name: "beanstalkd", Doc: "work queue with a log on disk", Packages: []string{"beanstalkd"}, User: "beanstalkd",
		Args:  []string{"/usr/bin/beanstalkd", "-l", "127.0.0.1", "-b", "/var/lib/beanstalkd", "-s", "32768", "-f", "1000"},
		Dirs:  []Dir{{Path: "/var/lib/beanstalkd", Owner: "beanstalkd"}},
		Ready: converse("tcp", address, step{"stats\r\n", "uptime"}),
		Ops: []Op{
			{Name: "load", Doc: "jobs are put and reserved", Do: repeat(30, work)},
			{Name: "binlog", Rare: true, Doc: "jobs are put until new log files are begun, and done until old ones are removed", Do: all(
				converse("tcp", address, fill...), drain, converse("tcp", address, append(fill, step{"stats\r\n", "binlog-current-index"})...), drain)},
			{Name: "pause", Rare: true, Doc: "a tube is paused, its jobs are delayed", Do: converse("tcp", address, step{"use slow\r\n", "USING"},
				step{"put 1 1 60 1\r\nx\r\n", "INSERTED"}, step{"pause-tube slow 1\r\n", "PAUSED"}, step{"watch slow\r\n", "WATCHING"},
				step{"reserve-with-timeout 5\r\n", "RESERVED"})},
			{Name: "drain", Rare: true, Last: true, Doc: "SIGUSR1 lets nobody put jobs any more", Do: all(signal(unix.SIGUSR1),
				eventually(converse("tcp", address, step{job("late"), "DRAINING"})))},
		},
	}
}

const natsConf = `listen: "127.0.0.1:4222"
http: "127.0.0.1:8222"
log_file: "/var/log/nats/nats.log"
pid_file: "/run/nats/nats.pid"
jetstream { store_dir: "/var/lib/nats" }
authorization { users = [ { user: "one", password: "word" } ] }
max_payload: 1MB
`

func nats() Service {
	const address = "127.0.0.1:4222"
	hello := func(user string, steps ...step) do {
		return converse("tcp", address, append([]step{{"", "INFO"}, {fmt.Sprintf("CONNECT {\"user\":%q,\"pass\":\"word\",\"verbose\":false}\r\nPING\r\n", user), "PONG"}}, steps...)...)
	}
	// A request of JetStream, which is answered to the inbox.
	ask := func(subject, body, want string) step {
		return step{fmt.Sprintf("SUB inbox 9\r\nPUB %s inbox %d\r\n%s\r\n", subject, len(body), body), want}
	}
	exchange := hello("one", step{"SUB s 1\r\nPUB s 5\r\nhello\r\n", "MSG s 1 5\r\nhello"})
	stream := `{"name":"S","subjects":["kept.*"],"storage":"file"}`
	return Service{
		Name: "nats", Doc: "message broker in Go with streams on disk", Packages: []string{"nats-server"}, User: "nats",
		Args:  []string{"/usr/sbin/nats-server", "-c", "/etc/nats.conf"},
		Dirs:  []Dir{{Path: "/var/log/nats", Owner: "nats"}, {Path: "/run/nats", Owner: "nats"}, {Path: "/var/lib/nats", Owner: "nats"}},
		Files: []File{{Path: "/etc/nats.conf", Text: natsConf}},
		Logs:  []string{"/var/log/nats/nats.log"}, Ready: exchange,
		Ops: []Op{
			{Name: "load", Doc: "messages are published and received", Do: repeat(30, exchange)},
			{Name: "stream", Rare: true, Doc: "a stream on disk is made, filled, purged and deleted", Do: hello("one",
				ask("$JS.API.STREAM.CREATE.S", stream, `"config":`), ask("kept.one", "first", `"seq":1`), ask("kept.two", "second", `"seq":2`),
				ask("$JS.API.STREAM.PURGE.S", "", `"purged":2`), ask("$JS.API.STREAM.DELETE.S", "", `"success":true`))},
			{Name: "reload", Rare: true, Doc: "a user is added, SIGHUP", Do: all(
				changed("/etc/nats.conf", "users = [", "users = [ { user: \"two\", password: \"word\" },"), signal(unix.SIGHUP), eventually(hello("two")))},
			{Name: "log-reopen", Rare: true, Doc: "the log is renamed, SIGUSR1", Do: rotation("/var/log/nats/nats.log", unix.SIGUSR1,
				converse("tcp", address, step{"", "INFO"}, step{"CONNECT {\"user\":\"nobody\"}\r\nPING\r\n", "Authorization Violation"}))},
			{Name: "monitor", Rare: true, Doc: "statistics over HTTP", Do: getOp(3, "http://127.0.0.1:8222/varz", "http://127.0.0.1:8222/jsz?streams=1")},
		},
	}
}
