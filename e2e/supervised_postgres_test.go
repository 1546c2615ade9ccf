// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

const postgresImage = "localhost/postgres:e2e"

// postgresBin is where the distribution puts the server's programs: they are in nobody's PATH.
func postgresBin(t *testing.T) (dir, pkg string) {
	t.Helper()
	testenv.NeedTool(t, "psql", "pgbench")
	found, err := os.ReadDir("/usr/lib/postgresql")
	if err != nil || len(found) == 0 {
		testenv.NeedTool(t, "postgres")
		t.Fatalf("no server's programs in /usr/lib/postgresql: %v", err)
	}
	version := found[len(found)-1].Name()
	return "/usr/lib/postgresql/" + version + "/bin", "postgresql-" + version
}

// loadPostgres as it is installed, with a shell, but for its compiler of queries, which is larger than all the rest, and make a database.
func loadPostgres(t *testing.T, e *testbed.Env) {
	t.Helper()
	bin, pkg := postgresBin(t)
	uid, gid := idsOf(t, "postgres")
	data := image.Dir("data", 0o700)
	data.UID, data.GID = uid, gid
	files := slices.DeleteFunc(packageFiles(t, "", []image.File{data}, pkg, "dash"), func(f image.File) bool {
		return strings.Contains(f.Path, "llvmjit") || strings.Contains(f.Path, "libLLVM") || strings.Contains(f.Path, "/bitcode/")
	})
	config := image.Config{Name: postgresImage}
	config.Entrypoint = []string{bin + "/postgres", "-D", "/data"}
	config.User = "postgres"
	bedtest.Load(t, e, config, files)
	bedtest.Podman(t, e, "volume", "create", "data")
	bedtest.Podman(t, e, "run", "--rm", "--network", "none", "--volume", "data:/data", "--annotation", "io.whittle.mode=off",
		"--entrypoint", bin+"/initdb", postgresImage, "-D", "/data", "--username", "postgres", "--auth", "trust", "--no-sync", "--locale", "C")
}

func idsOf(t *testing.T, name string) (uid, gid int) {
	t.Helper()
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, ":")
		if fields[0] != name || len(fields) < 4 {
			continue
		}
		if uid, err = strconv.Atoi(fields[2]); err == nil {
			gid, err = strconv.Atoi(fields[3])
		}
		if err != nil {
			t.Fatal(err)
		}
		return uid, gid
	}
	t.Fatalf("no user %s", name)
	return 0, 0
}

func startPostgres(t *testing.T, e *testbed.Env, port, name string, flags ...string) {
	t.Helper()
	args := append([]string{"run", "--detach", "--network", "host", "--name", name, "--volume", "data:/data"}, flags...)
	bedtest.Podman(t, e, append(args, postgresImage, "-p", port, "-h", "127.0.0.1", "-k", "/tmp")...)
	postgresAnswers(t, e, port, name)
}

func postgresAnswers(t *testing.T, e *testbed.Env, port, name string) {
	t.Helper()
	eventually(t, "PostgreSQL answers", func() (bool, string) {
		out, err := psql(t.Context(), port, "SELECT 1")
		log, _ := e.Command(t.Context(), "logs", "--tail", "20", name).CombinedOutput()
		return err == nil && out == "1", out + string(log)
	})
}

func psql(ctx context.Context, port, query string) (string, error) {
	out, err := exec.CommandContext(ctx, "psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-c", query).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// pgbench with a connection, and so a new backend, for each transaction.
func pgbench(ctx context.Context, port string) error {
	out, err := exec.CommandContext(ctx, "pgbench", "-n", "-C", "-c", "2", "-t", "10", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "postgres").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "number of transactions actually processed: 20/20") {
		return fmt.Errorf("pgbench: %w: %s", err, out)
	}
	return nil
}

// usePostgres with what pgbench does not do: other kinds of tables, sorts, background work.
func usePostgres(t *testing.T, port string) {
	t.Helper()
	for _, query := range []string{
		"DROP TABLE IF EXISTS t", "CREATE TABLE t AS SELECT g, md5(g::text) AS m FROM generate_series(1, 20000) g", "CREATE INDEX ON t (m)",
		"SELECT count(*) FROM (SELECT m FROM t ORDER BY m) s", "VACUUM ANALYZE t", "CHECKPOINT", "SELECT pg_reload_conf()",
		"COPY t TO '/tmp/t'", "TRUNCATE t", "COPY t FROM '/tmp/t'",
	} {
		if out, err := psql(t.Context(), port, query); err != nil {
			t.Fatalf("%s: %v: %s", query, err, out)
		}
	}
}

// learnPostgres in one run; a run more is learned from when the data has been written to.
func learnPostgres(t *testing.T, e *testbed.Env, d *daemon, port string) {
	t.Helper()
	for i := range 2 {
		startPostgres(t, e, port, "learner")
		if i == 0 {
			if out, err := exec.Command("pgbench", "-i", "-q", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "postgres").CombinedOutput(); err != nil {
				t.Fatalf("pgbench -i: %v: %s", err, out)
			}
		}
		l := startLoad(t, 1, func(ctx context.Context, _ int) error { return pgbench(ctx, port) })
		usePostgres(t, port)
		d.container("learner", "serves", func(c api.Container) bool { return c.Phase == policy.Run && c.ByPhase["run"] > 0 })
		l.goOn(2)
		bedtest.Podman(t, e, "kill", "--signal", "HUP", "learner")
		l.goOn(2)
		usePostgres(t, port)
		l.end()
		bedtest.Podman(t, e, "stop", "--time", "20", "learner")
		exited(t, e, "learner")
		bedtest.Podman(t, e, "rm", "learner")
		d.forgotten()
	}
}

// TestSupervisedPostgres: a postmaster that forks for every connection, backends that lose what they need for that.
func TestSupervisedPostgres(t *testing.T) {
	t.Parallel()
	e, d := supervisedBed(t, "")
	loadPostgres(t, e)
	port := freePort(t)
	learnPostgres(t, e, d, port)
	d.whittle("policy", "mode", "postgres", "enforce")
	startPostgres(t, e, port, "held")
	l := startLoad(t, 1, func(ctx context.Context, _ int) error { return pgbench(ctx, port) })
	c := d.supervised("held", api.ModeEnforce, policy.Run)
	l.goOn(3)
	usePostgres(t, port)
	bedtest.Podman(t, e, "kill", "--signal", "HUP", "held")
	l.goOn(3)
	d.supervised("held", api.ModeEnforce, policy.Run)
	d.nothingRefused("under load")
	d.asIntended("held")
	postgresIsHeld(t, d, port, c.PID)
	l.goOn(3)
	l.end()
	before := len(d.heldLines("refused"))
	if out, err := psql(t.Context(), port, "CREATE TABLE kept AS SELECT 42 AS answer"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	stopped := time.Now()
	bedtest.Podman(t, e, "stop", "--time", "20", "held")
	exited(t, e, "held")
	d.forgotten()
	bedtest.Podman(t, e, "start", "held")
	postgresAnswers(t, e, port, "held")
	if out, err := psql(t.Context(), port, "SELECT answer FROM kept"); err != nil || out != "42" {
		t.Errorf("what was written is lost: %v: %s", err, out)
	}
	log, err := e.Command(t.Context(), "logs", "--since", stopped.Format(time.RFC3339), "held").CombinedOutput()
	if err != nil || !strings.Contains(string(log), "database system was shut down at") || strings.Contains(string(log), "recovery") {
		t.Errorf("it did not stop well (%v):\n%s", err, log)
	}
	d.supervised("held", api.ModeEnforce, policy.Run)
	bedtest.Podman(t, e, "stop", "--time", "20", "held")
	exited(t, e, "held")
	d.forgotten()
	for _, l := range d.heldLines("refused")[before:] {
		t.Errorf("while stopping and starting again: %+v", l)
	}
}

// postgresIsHeld: a backend that is told to start a program cannot, whatever the database's rights say.
func postgresIsHeld(t *testing.T, d *daemon, port string, postmaster int) {
	t.Helper()
	if out, err := psql(t.Context(), port, "COPY (SELECT 1) TO PROGRAM '/usr/lib/postgresql/x'"); err == nil || !strings.Contains(out, "could not execute command") {
		t.Errorf("COPY TO PROGRAM: %v: %s", err, out)
	}
	idle := exec.Command("psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", port, "-U", "postgres")
	in, err := idle.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := idle.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(in, "SELECT pg_backend_pid();"); err != nil {
		t.Error(err)
	}
	inside := 0
	if _, err := fmt.Fscan(out, &inside); err != nil {
		t.Error(err)
	}
	backend := hostPID(t, postmaster, inside)
	refusedIn(t, backend, "execve", "clone", "bind", "listen", "setuid", "unshare", "bpf", "ptrace")
	refusedIn(t, postmaster, "execve", "bind", "listen", "setuid", "unshare", "bpf", "ptrace")
	if _, err := fmt.Fprintln(in, "SELECT 42;"); err != nil {
		t.Error(err)
	}
	if _, err := fmt.Fscan(out, &inside); err != nil || inside != 42 {
		t.Errorf("the backend says %d, %v", inside, err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := idle.Wait(); err != nil {
		t.Error(err)
	}
}

// hostPID of a child, by its pid in the container.
func hostPID(t *testing.T, parent, inside int) int {
	t.Helper()
	for _, pid := range childrenOf(t, parent) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && strings.Contains(string(status), fmt.Sprintf("\nNSpid:\t%d\t%d\n", pid, inside)) {
			return pid
		}
	}
	t.Fatalf("no child of %d is %d in the container", parent, inside)
	return 0
}
