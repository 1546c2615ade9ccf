// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const mariadbConf = `[mariadbd]
user = mysql
datadir = /var/lib/mysql
socket = /run/mysqld/mysqld.sock
pid-file = /run/mysqld/mysqld.pid
bind-address = 127.0.0.1
log-error = /var/log/mysql/error.log
general-log-file = /var/log/mysql/general.log
general-log = 1
slow-query-log-file = /var/log/mysql/slow.log
log-bin = bin
server-id = 1
max-allowed-packet = 128M
innodb-buffer-pool-size = 64M
secure-file-priv = ""
ssl-cert = /etc/mysql/test-cert.pem
ssl-key = /etc/mysql/test-key.pem
`

func mariadb() Service {
	cert, key := certificate(1)
	sql := func(want string, statements string) func(context.Context, *Instance) error {
		return func(ctx context.Context, i *Instance) error { return i.mariadbWant(ctx, want, statements) }
	}
	return Service{
		Name: "mariadb", Doc: "database with threads", Packages: []string{"mariadb-server", "mariadb-client"},
		Args: []string{"/usr/sbin/mariadbd", "--defaults-file=/etc/mysql/test.cnf"},
		Hide: []string{"/var/lib/mysql", "/var/log/mysql"}, Logs: []string{"/var/log/mysql/error.log"},
		Dirs: []Dir{
			{Path: "/var/lib/mysql", Owner: "mysql"}, {Path: "/var/log/mysql", Owner: "mysql"}, {Path: "/run/mysqld", Owner: "mysql"},
		},
		Files: []File{
			{Path: "/etc/mysql/test.cnf", Text: mariadbConf},
			{Path: "/etc/mysql/test-cert.pem", Text: cert, Owner: "mysql"}, {Path: "/etc/mysql/test-key.pem", Text: key, Owner: "mysql", Mode: 0o600},
		},
		Prepare: []Command{{Args: []string{
			"mariadb-install-db", "--no-defaults", "--user=mysql", "--datadir=/var/lib/mysql", "--auth-root-authentication-method=normal", "--skip-test-db",
		}}},
		Ready: sql("1", "SELECT 1"),
		Ops: []Op{
			{Name: "load", Doc: "INSERT, SELECT, UPDATE, transactions, by several clients", Do: mariadbLoad},
			{Name: "reload", Rare: true, Doc: "SIGHUP flushes logs and tables", Do: func(ctx context.Context, i *Instance) error {
				return i.rotated(ctx, "/var/log/mysql/general.log", func() error { return i.Signal(unix.SIGHUP) },
					func() error { return i.mariadbWant(ctx, "1", "SELECT 1") })
			}},
			{Name: "log-rotate", Rare: true, Doc: "the error log is renamed, FLUSH LOGS", Do: func(ctx context.Context, i *Instance) error {
				if err := os.Rename(i.Path("/var/log/mysql/error.log"), i.Path("/var/log/mysql/error.log.1")); err != nil {
					return err
				}
				if err := i.mariadbWant(ctx, "", "FLUSH LOGS"); err != nil {
					return err
				}
				_, err := os.Stat(i.Path("/var/log/mysql/error.log"))
				return err
			}},
			{Name: "slow-log", Rare: true, Doc: "the slow-query log is switched on, and a query is slow", Do: func(ctx context.Context, i *Instance) error {
				if _, err := i.mariadb(ctx, "SET GLOBAL slow_query_log = 1; SET SESSION slow_query_log = 1; SET SESSION long_query_time = 0.05; SELECT SLEEP(0.2) AS slow_one"); err != nil {
					return err
				}
				text, err := os.ReadFile(i.Path("/var/log/mysql/slow.log"))
				if err == nil && !strings.Contains(string(text), "slow_one") {
					err = errors.New("the query is not in the slow log")
				}
				return err
			}},
			{Name: "dump", Rare: true, Doc: "mariadb-dump in one transaction", Do: func(ctx context.Context, i *Instance) error {
				out, err := i.Exec(ctx, "mariadb-dump", "--no-defaults", "-uroot", "-S", i.Path("/run/mysqld/mysqld.sock"), "--single-transaction", "test1")
				if err == nil && !strings.Contains(out, "CREATE TABLE `t`") {
					err = errors.New("the table is not in the dump")
				}
				return err
			}},
			{Name: "backup-stage", Rare: true, Doc: "BACKUP STAGE, as mariadb-backup does it", Do: sql("",
				"BACKUP STAGE START; BACKUP STAGE FLUSH; BACKUP STAGE BLOCK_DDL; BACKUP STAGE BLOCK_COMMIT; BACKUP STAGE END")},
			{Name: "optimize", Rare: true, Doc: "OPTIMIZE, ANALYZE, CHECK and ALTER TABLE", Do: sql("1",
				"OPTIMIZE TABLE test1.t; ANALYZE TABLE test1.t; CHECK TABLE test1.t; ALTER TABLE test1.t ADD COLUMN IF NOT EXISTS more INT; SELECT COUNT(*) > 0 FROM test1.t")},
			{Name: "repair", Rare: true, Doc: "a MyISAM table is filled, repaired and dropped", Do: sql("1000",
				"USE test1; CREATE OR REPLACE TABLE test1.m (n INT, KEY (n)) ENGINE=MyISAM; INSERT INTO test1.m SELECT seq FROM seq_1_to_1000; REPAIR TABLE test1.m; SELECT COUNT(*) FROM test1.m")},
			{Name: "memory-growth", Rare: true, Doc: "a value of 64 MB", Do: sql("67108864", "SELECT LENGTH(CONCAT(REPEAT('x', 33554432), REPEAT('y', 33554432)))")},
			{Name: "sort", Rare: true, Doc: "a sort that spills to disk", Do: sql("40000",
				"USE test1; SET SESSION sort_buffer_size = 32768; CREATE TEMPORARY TABLE test1.s AS SELECT seq, REPEAT('z', 100) AS z FROM seq_1_to_40000; SELECT COUNT(*) FROM (SELECT DISTINCT z, seq FROM test1.s ORDER BY RAND()) q")},
			{Name: "buffer-pool", Rare: true, Doc: "innodb_buffer_pool_size is changed", Do: mariadbPool},
			{Name: "purge-binlog", Rare: true, Doc: "FLUSH BINARY LOGS, PURGE BINARY LOGS", Do: sql("",
				"FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW()")},
			{Name: "outfile", Rare: true, Doc: "SELECT INTO OUTFILE, LOAD DATA INFILE", Do: func(ctx context.Context, i *Instance) error {
				name := fmt.Sprintf("/var/lib/mysql/out%d", time.Now().UnixNano())
				return i.mariadbWant(ctx, "1000", "USE test1; SELECT seq FROM seq_1_to_1000 INTO OUTFILE '"+name+"'; CREATE OR REPLACE TABLE test1.l (n INT); LOAD DATA INFILE '"+
					name+"' INTO TABLE test1.l; SELECT COUNT(*) FROM test1.l")
			}},
			{Name: "plugin", Rare: true, Doc: "a plugin is installed and removed", Do: sql("0",
				"INSTALL SONAME 'simple_password_check'; UNINSTALL SONAME 'simple_password_check'; SELECT COUNT(*) FROM information_schema.plugins WHERE plugin_name = 'simple_password_check'")},
			{Name: "kill", Rare: true, Doc: "KILL of a connection that sleeps", Do: mariadbKill},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate, FLUSH SSL", Do: func(ctx context.Context, i *Instance) error {
				cert, key := certificate(2)
				err := errors.Join(i.rewrite("/etc/mysql/test-cert.pem", cert), i.rewrite("/etc/mysql/test-key.pem", key))
				if err != nil {
					return err
				}
				_, err = i.mariadb(ctx, "FLUSH SSL")
				return err
			}},
		},
	}
}

// mariadb runs statements and returns the last line of what they give.
func (i *Instance) mariadb(ctx context.Context, statements string) (string, error) {
	out, err := i.Exec(ctx, "mariadb", "--no-defaults", "-uroot", "-S", i.Path("/run/mysqld/mysqld.sock"), "-N", "-B", "-e", statements)
	lines := strings.Split(out, "\n")
	return lines[len(lines)-1], err
}

func (i *Instance) mariadbWant(ctx context.Context, want, statements string) error {
	got, err := i.mariadb(ctx, statements)
	if err == nil && got != want {
		err = fmt.Errorf("%.200s gives %.200q, want %q", statements, got, want)
	}
	return err
}

func mariadbLoad(ctx context.Context, i *Instance) error {
	setup := "CREATE DATABASE IF NOT EXISTS test1; CREATE TABLE IF NOT EXISTS test1.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200), n INT, KEY (n))"
	if _, err := i.mariadb(ctx, setup); err != nil {
		return err
	}
	done := make(chan error, 4)
	for range cap(done) {
		go func() {
			var b strings.Builder
			for n := range 200 {
				fmt.Fprintf(&b, "INSERT INTO test1.t (v, n) VALUES ('value %d', %d); SELECT v FROM test1.t WHERE n = %d LIMIT 1; ", n, n, n)
				fmt.Fprintf(&b, "BEGIN; UPDATE test1.t SET n = n + 1 WHERE id = %d; COMMIT; ", n)
			}
			_, err := i.mariadb(ctx, b.String()+"SELECT COUNT(*) FROM test1.t")
			done <- err
		}()
	}
	var errs []error
	for range cap(done) {
		errs = append(errs, <-done)
	}
	// Through TCP, too.
	_, err := i.Exec(ctx, "mariadb", "--no-defaults", "-uroot", "-h127.0.0.1", "-e", "SELECT 1")
	return errors.Join(append(errs, err)...)
}

func mariadbPool(ctx context.Context, i *Instance) error {
	if _, err := i.mariadb(ctx, "SET GLOBAL innodb_buffer_pool_size = 134217728"); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error { return i.mariadbWant(ctx, "134217728", "SELECT @@innodb_buffer_pool_size") })
}

func mariadbKill(ctx context.Context, i *Instance) error {
	done := make(chan error, 1)
	go func() { _, err := i.mariadb(ctx, "SELECT SLEEP(30) AS killed"); done <- err }()
	err := Eventually(ctx, 20*time.Second, func() error {
		id, err := i.mariadb(ctx, "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(30)%'")
		if err == nil && id == "" {
			err = errors.New("there is no such connection")
		}
		if err == nil {
			_, err = i.mariadb(ctx, "KILL "+id)
		}
		return err
	})
	if slept := <-done; slept == nil {
		err = errors.Join(err, errors.New("it was not killed"))
	}
	return err
}
