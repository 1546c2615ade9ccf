// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const postgresConf = `listen_addresses = '127.0.0.1'
unix_socket_directories = '/run/postgresql'
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%H%M%S.log'
log_min_duration_statement = -1
work_mem = '256kB'
ssl = on
ssl_cert_file = '/etc/postgresql/cert.pem'
ssl_key_file = '/etc/postgresql/key.pem'
wal_level = logical
max_wal_senders = 4
autovacuum_naptime = 2s
`

const pgData = "/var/lib/postgresql/data"

// pgBin is where Debian puts the programs of a release; PATH has only some of them.
func pgBin(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return name
	}
	return found[len(found)-1]
}

func postgres() Service {
	cert, key := certificate(1)
	sql := func(want string, statements ...string) func(context.Context, *Instance) error {
		return func(ctx context.Context, i *Instance) error { return i.sqlWant(ctx, want, statements...) }
	}
	return Service{
		Name: "postgresql", Doc: "database", Packages: []string{"postgresql", "postgresql-client"},
		Args: []string{pgBin("postgres"), "-D", pgData}, User: "postgres",
		Hide: []string{"/var/lib/postgresql"},
		Dirs: []Dir{{Path: "/var/lib/postgresql", Owner: "postgres"}, {Path: "/run/postgresql", Owner: "postgres"}, {Path: "/srv/space", Owner: "postgres"}},
		Files: []File{
			{Path: "/etc/postgresql/cert.pem", Text: cert, Owner: "postgres"}, {Path: "/etc/postgresql/key.pem", Text: key, Owner: "postgres", Mode: 0o600},
			{Path: "/etc/postgresql/test.conf", Text: postgresConf},
		},
		Prepare: []Command{
			{User: "postgres", Args: []string{pgBin("initdb"), "--auth", "trust", "--no-sync", "-D", pgData}},
			{User: "postgres", Args: []string{"sh", "-c", "cat /etc/postgresql/test.conf >>" + pgData + "/postgresql.conf"}},
		},
		Ready: sql("1", "SELECT 1"),
		Ops: []Op{
			{Name: "load", Doc: "pgbench with several clients, with and without TLS", Do: postgresLoad},
			{Name: "reload", Rare: true, Doc: "ALTER SYSTEM, SIGHUP", Do: postgresReload},
			{Name: "memory-growth", Rare: true, Doc: "a value of 100 MB is put together", Do: sql("100000000",
				"SELECT length(string_agg(repeat('x', 1000), '')) FROM generate_series(1, 100000)")},
			{Name: "vacuum-full", Rare: true, Doc: "VACUUM FULL, ANALYZE, REINDEX", Do: sql("t",
				"VACUUM FULL ANALYZE pgbench_accounts", "REINDEX TABLE pgbench_accounts", "SELECT count(*) > 0 FROM pgbench_accounts")},
			{Name: "checkpoint", Rare: true, Doc: "CHECKPOINT, a new segment of the log", Do: sql("t",
				"CHECKPOINT", "SELECT pg_switch_wal() IS NOT NULL")},
			{Name: "dump", Rare: true, Doc: "pg_dump", Do: func(ctx context.Context, i *Instance) error {
				out, err := i.Exec(ctx, pgBin("pg_dump"), "-h", "127.0.0.1", "-U", "postgres", "-t", "pgbench_branches", "postgres")
				if err == nil && !strings.Contains(out, "CREATE TABLE public.pgbench_branches") {
					err = errors.New("the table is not in the dump")
				}
				return err
			}},
			{Name: "base-backup", Rare: true, Doc: "pg_basebackup with the log streamed", Do: postgresBackup},
			{Name: "log-rotate", Rare: true, Doc: "pg_rotate_logfile()", Do: postgresRotate},
			{Name: "terminate", Rare: true, Doc: "pg_terminate_backend() of one that sleeps", Do: postgresTerminate},
			{Name: "sort", Rare: true, Doc: "a sort that spills to disk, a parallel query", Do: sql("300000",
				"SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; "+
					"SELECT count(*) FROM (SELECT DISTINCT g % 300000 AS d, repeat('y', 40) FROM generate_series(1, 300000) g ORDER BY 1 DESC) t")},
			{Name: "parallel", Rare: true, Doc: "a parallel query over a table", Do: sql("t",
				"SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; "+
					"SELECT sum(abalance) IS NOT NULL FROM pgbench_accounts WHERE aid % 7 = 1")},
			{Name: "copy-program", Rare: true, Doc: "COPY … FROM PROGRAM runs a shell", Do: sql("1",
				"CREATE TABLE IF NOT EXISTS c (t text); TRUNCATE c; COPY c FROM PROGRAM 'echo from a program'; SELECT count(*) FROM c")},
			{Name: "copy-file", Rare: true, Doc: "COPY to a file and back", Do: sql("1000",
				"COPY (SELECT generate_series(1, 1000)) TO '/var/lib/postgresql/copied'; CREATE TEMP TABLE f (n int); COPY f FROM '/var/lib/postgresql/copied'; SELECT count(*) FROM f")},
			{Name: "create-database", Rare: true, Doc: "CREATE DATABASE by copied files, DROP DATABASE", Do: sql("",
				"CREATE DATABASE other STRATEGY file_copy", "DROP DATABASE other")},
			{Name: "tablespace", Rare: true, Doc: "CREATE TABLESPACE, a table is moved there and back", Do: sql("t",
				"CREATE TABLESPACE s LOCATION '/srv/space'", "ALTER TABLE pgbench_tellers SET TABLESPACE s",
				"ALTER TABLE pgbench_tellers SET TABLESPACE pg_default", "DROP TABLESPACE s", "SELECT count(*) > 0 FROM pgbench_tellers")},
			{Name: "large-object", Rare: true, Doc: "lo_import and lo_export of a file", Do: sql("t",
				"SELECT lo_from_bytea(4711, decode(repeat('ab', 100000), 'hex')) > 0", "SELECT lo_export(4711, '/var/lib/postgresql/large') = 1",
				"SELECT lo_import('/var/lib/postgresql/large') > 0 AND lo_unlink(4711) = 1")},
			{Name: "jit", Rare: true, Doc: "a query that is compiled, where LLVM is there", Do: sql("t",
				"SET jit = on; SET jit_above_cost = 0; SET jit_optimize_above_cost = 0; SET jit_inline_above_cost = 0; SELECT sum(abalance) + count(*) > -1e12 FROM pgbench_accounts")},
			{Name: "tls-reload", Rare: true, Doc: "a new certificate, SIGHUP", Do: postgresTLS},
			{Name: "backend-crash", Rare: true, Doc: "a backend is killed; all others are started again, and recover", Do: postgresCrash},
			{Name: "logical-slot", Rare: true, Doc: "a logical replication slot is made, read and dropped", Do: sql("t",
				"SELECT pg_create_logical_replication_slot('l', 'test_decoding') IS NOT NULL", "CREATE TABLE decoded (n int)", "INSERT INTO decoded VALUES (1)",
				"SELECT count(*) > 0 FROM pg_logical_slot_get_changes('l', NULL, NULL)", "SELECT pg_drop_replication_slot('l') IS NOT NULL")},
		},
	}
}

// sql runs statements, each in its own transaction, and returns what the last one gives.
func (i *Instance) sql(ctx context.Context, statements ...string) (string, error) {
	args := []string{"psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	out, err := i.Exec(ctx, args...)
	lines := strings.Split(out, "\n")
	return lines[len(lines)-1], err
}

func (i *Instance) sqlWant(ctx context.Context, want string, statements ...string) error {
	got, err := i.sql(ctx, statements...)
	if err == nil && got != want {
		err = fmt.Errorf("%.200s gives %.200q, want %q", statements[len(statements)-1], got, want)
	}
	return err
}

func postgresLoad(ctx context.Context, i *Instance) error {
	if _, err := i.sql(ctx, "SELECT count(*) FROM pgbench_accounts"); err != nil {
		if _, err := i.Exec(ctx, pgBin("pgbench"), "-h", "127.0.0.1", "-U", "postgres", "-q", "-i", "-s", "2", "postgres"); err != nil {
			return err
		}
	}
	_, err := i.Exec(ctx, pgBin("pgbench"), "-h", "127.0.0.1", "-U", "postgres", "-c", "4", "-t", "200", "postgres")
	if err != nil {
		return err
	}
	_, err = i.Exec(ctx, pgBin("pgbench"), "-h", i.Path("/run/postgresql"), "-U", "postgres", "-C", "-S", "-c", "2", "-t", "20", "postgres")
	return err
}

func postgresReload(ctx context.Context, i *Instance) error {
	value := strconv.Itoa(100 + int(time.Now().UnixNano()%1000))
	if _, err := i.sql(ctx, "ALTER SYSTEM SET log_min_duration_statement = "+value); err != nil {
		return err
	}
	if err := i.Signal(unix.SIGHUP); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		return i.sqlWant(ctx, value, "SELECT setting FROM pg_settings WHERE name = 'log_min_duration_statement'")
	})
}

func postgresBackup(ctx context.Context, i *Instance) error {
	dir, err := os.MkdirTemp("/var/tmp", "whittle-backup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := i.Exec(ctx, pgBin("pg_basebackup"), "-h", "127.0.0.1", "-U", "postgres", "-D", dir+"/b", "-X", "stream", "--checkpoint=fast"); err != nil {
		return err
	}
	_, err = os.Stat(dir + "/b/PG_VERSION")
	return err
}

func postgresRotate(ctx context.Context, i *Instance) error {
	before, err := i.sql(ctx, "SELECT pg_current_logfile()")
	if err != nil {
		return err
	}
	time.Sleep(1100 * time.Millisecond) // a file's name has the second
	if err := i.sqlWant(ctx, "t", "SELECT pg_rotate_logfile()"); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		now, err := i.sql(ctx, "SELECT pg_current_logfile()")
		if err == nil && now == before {
			err = fmt.Errorf("the log is still %s", now)
		}
		return err
	})
}

func postgresTerminate(ctx context.Context, i *Instance) error {
	done := make(chan error, 1)
	go func() { _, err := i.sql(ctx, "SELECT pg_sleep(30)"); done <- err }()
	err := Eventually(ctx, 20*time.Second, func() error {
		return i.sqlWant(ctx, "t", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'")
	})
	if slept := <-done; slept == nil {
		err = errors.Join(err, errors.New("it was not terminated"))
	}
	return err
}

func postgresTLS(ctx context.Context, i *Instance) error {
	cert, key := certificate(2)
	err := errors.Join(i.rewrite("/etc/postgresql/cert.pem", cert), i.rewrite("/etc/postgresql/key.pem", key), i.Signal(unix.SIGHUP))
	if err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		out, err := i.Exec(ctx, "openssl", "s_client", "-starttls", "postgres", "-connect", "127.0.0.1:5432")
		if err != nil && out == "" {
			return err
		}
		pem := out[max(0, strings.Index(out, "-----BEGIN")):]
		serial, err := i.ExecInput(ctx, pem, "openssl", "x509", "-noout", "-serial")
		if err == nil && serial != "serial=02" {
			err = fmt.Errorf("the certificate served has %s", serial)
		}
		return err
	})
}

func postgresCrash(ctx context.Context, i *Instance) error {
	done := make(chan error, 1)
	go func() { _, err := i.sql(ctx, "SELECT pg_sleep(30)"); done <- err }()
	err := Eventually(ctx, 20*time.Second, func() error {
		pids, err := i.Children("SELECT")
		if err == nil && len(pids) == 0 {
			err = errors.New("there is no backend")
		}
		if err == nil {
			err = unix.Kill(pids[0], unix.SIGKILL)
		}
		return err
	})
	if slept := <-done; slept == nil {
		err = errors.Join(err, errors.New("it was not killed"))
	}
	return errors.Join(err, Eventually(ctx, 30*time.Second, func() error { return i.sqlWant(ctx, "1", "SELECT 1") }))
}
