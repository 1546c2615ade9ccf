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

// batches are containers that do one job after the other.
func batches() []Service { return []Service{build(), archive(), sqlite()} }

// runner takes jobs, which are commands of the shell, from a pipe. It is what a worker of a build farm or cron is here.
const runner = `trap 'exit 0' TERM
mkfifo -m 600 /run/jobs
while :; do
	read -r job </run/jobs || continue
	sh -c "$job" >/run/out 2>&1
	echo $? >/run/status.new
	mv /run/status.new /run/status
done
`

// batch is a service that does jobs.
func batch(s Service) Service {
	s.Args = []string{"/bin/sh", "/srv/runner"}
	s.Files = append(s.Files, File{Path: "/srv/runner", Text: runner})
	s.Env = append(s.Env, "LC_ALL=C.UTF-8", "HOME=/root")
	s.Ready = func(_ context.Context, i *Instance) error {
		_, err := os.Stat(i.Path("/run/jobs"))
		return err
	}
	return s
}

// work is a job that has to end well and print a text.
func work(want, command string) do {
	return func(ctx context.Context, i *Instance) error {
		if err := os.Remove(i.Path("/run/status")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		err := Eventually(ctx, 10*time.Second, func() error {
			// O_NONBLOCK: there may be nobody who reads.
			pipe, err := os.OpenFile(i.Path("/run/jobs"), os.O_WRONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				return err
			}
			_, err = pipe.WriteString(command + "\n")
			return errors.Join(err, pipe.Close())
		})
		if err != nil {
			return err
		}
		var status []byte
		if err := Eventually(ctx, 30*time.Second, func() (err error) {
			status, err = os.ReadFile(i.Path("/run/status"))
			return err
		}); err != nil {
			return fmt.Errorf("%s: it does not end: %w", command, err)
		}
		out, err := os.ReadFile(i.Path("/run/out"))
		if err == nil && strings.TrimSpace(string(status)) != "0" {
			err = fmt.Errorf("%s: status %s: %s", command, status, tail(string(out)))
		}
		return wants(command, string(out), want, err)
	}
}

const makefile = `CFLAGS = -O2 -g
objects = main.o one.o two.o three.o
program: $(objects)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^
$(objects): part.h
clean:
	rm -f *.o *.a *.gc* program program.tar.gz
library.a: $(objects)
	ar rcs $@ $^
	ranlib $@
dist: clean
	tar -czf /tmp/program.tar.gz .
	tar -tzf /tmp/program.tar.gz
`

func build() Service {
	const in = "make -C /srv/src "
	part := func(name string) File {
		return File{Path: "/srv/src/" + name + ".c", Text: "#include \"part.h\"\nint " + name + "(int a) { int s = 0; for (int i = 0; i < a; i++) s += i * a; return s; }\n"}
	}
	return batch(Service{
		Name: "build", Doc: "gcc and make, job by job", Packages: []string{"gcc", "make", "libc6-dev", "binutils"},
		Dirs: []Dir{{Path: "/srv/src"}},
		Files: []File{
			{Path: "/srv/src/Makefile", Text: makefile}, {Path: "/srv/src/part.h", Text: "#include <stdio.h>\nint one(int), two(int), three(int);\n"},
			{Path: "/srv/src/main.c", Text: "#include \"part.h\"\nint main(void) { printf(\"built %d\\n\", one(2) + two(3) + three(4)); return 0; }\n"},
			part("one"), part("two"), part("three"),
		},
		Ops: []Op{
			{Name: "load", Doc: "a file is changed, made and run", Do: repeat(2, work("built", "touch /srv/src/one.c && "+in+"&& /srv/src/program"))},
			{Name: "parallel", Rare: true, Doc: "everything is made anew by several jobs (make's job server)", Do: work("built", in+"clean && "+in+"-j4 -Otarget && /srv/src/program")},
			{Name: "lto", Rare: true, Doc: "optimization when linking", Do: work("built", in+"clean && "+in+"CFLAGS='-O2 -flto=2' && /srv/src/program")},
			{Name: "static", Rare: true, Doc: "a static program and a library, stripped", Do: work("built", in+"clean && "+in+"LDFLAGS=-static library.a program && strip /srv/src/program && /srv/src/program")},
			{Name: "coverage", Rare: true, Doc: "a program that counts what it runs", Do: work("Lines executed", in+"clean && "+in+"CFLAGS=--coverage && cd /srv/src && ./program && gcov one.c")},
			{Name: "fail", Rare: true, Doc: "a file that is wrong, and temporary files kept", Do: work("error", "cd /srv/src && echo 'int x = y;' >/tmp/wrong.c; ! gcc -pipe -c -o /tmp/x.o /tmp/wrong.c && gcc -save-temps -c one.c")},
			{Name: "dist", Rare: true, Doc: "the sources are packed", Do: work("main.c", in+"dist")},
		},
	})
}

func archive() Service {
	return batch(Service{
		Name: "archive", Doc: "tar, compressors and checksums, job by job", Packages: []string{"tar", "gzip", "xz-utils", "zstd", "coreutils", "findutils"},
		Dirs:  []Dir{{Path: "/srv/data"}, {Path: "/srv/data/sub"}, {Path: "/srv/out"}},
		Files: []File{{Path: "/srv/data/large.bin", Text: string(large(6 << 20))}, {Path: "/srv/data/sub/one.txt", Text: strings.Repeat("b line\na line\n", 40000)}},
		Ops: []Op{
			{Name: "load", Doc: "an archive is made and listed", Do: repeat(3, work("sub/one.txt", "tar -C /srv/data -czf /srv/out/a.tar.gz . && tar -tzf /srv/out/a.tar.gz"))},
			{Name: "xz", Rare: true, Doc: "compressed by threads", Do: work("OK", "xz -1 -k -T2 --block-size=1MiB -f /srv/data/large.bin && xz -tv -T2 /srv/data/large.bin.xz && rm /srv/data/large.bin.xz && echo OK")},
			{Name: "zstd", Rare: true, Doc: "compressed by other threads, through a pipe", Do: work("OK", "tar -C /srv/data -cf - . | zstd -q -T2 -f -o /srv/out/a.zst && zstd -qt /srv/out/a.zst && echo OK")},
			{Name: "incremental", Rare: true, Doc: "only what has changed since the last archive, and extracted", Do: work("new.txt", "cd /srv/data && tar -g /srv/out/state -cf /srv/out/full.tar . && echo x >new.txt && tar -g /srv/out/state -cf /srv/out/more.tar . && mkdir -p /srv/out/x && tar -C /srv/out/x -xpf /srv/out/full.tar && tar -C /srv/out/x -xvpf /srv/out/more.tar")},
			{Name: "sparse", Rare: true, Doc: "sparse files, links, attributes and owners", Do: work("OK", "cd /srv/data && truncate -s 20M hole && ln -f hole hard && ln -sf hole soft && chown games hole && tar --xattrs --acls -Scf /srv/out/s.tar hole hard soft && mkdir -p /srv/out/y && tar -C /srv/out/y --xattrs -xpf /srv/out/s.tar && cp --sparse=always --preserve=all hole hole2 && rm hole* hard soft && echo OK")},
			{Name: "sort", Rare: true, Doc: "sorted through files by threads, split, and compared", Do: work("OK", "cd /srv/out && sort --parallel=2 -S 200K -T /srv/out /srv/data/sub/one.txt >s && split -n 4 s part. && cat part.* | cmp - s && rm part.* && echo OK")},
			{Name: "sync", Rare: true, Doc: "written around the cache and synced, and space allocated", Do: work("OK", "cd /srv/out && dd if=/srv/data/large.bin of=copy bs=64K conv=fsync,notrunc status=none && fallocate -l 1M more && sync copy && sha256sum -b copy /srv/data/large.bin && find . -newer /srv/runner -size +1k -exec stat -c %n {} + && echo OK")},
		},
	})
}

func sqlite() Service {
	query := func(want string, statements ...string) do {
		var command strings.Builder
		command.WriteString("sqlite3 -batch /srv/db/one.db")
		for _, s := range statements {
			command.WriteString(" '" + s + "'")
		}
		return work(want, command.String())
	}
	const fill = "insert into t(x) with recursive c(n) as (select 1 union all select n+1 from c where n < 20000) select hex(randomblob(20)) from c;"
	return batch(Service{
		Name: "sqlite", Doc: "jobs on a database of SQLite", Packages: []string{"sqlite3"}, Dirs: []Dir{{Path: "/srv/db"}},
		Ops: []Op{
			{Name: "load", Doc: "rows are inserted and counted", Do: repeat(4, query("rows", "create table if not exists t(id integer primary key, x);", "insert into t(x) values(1),(2),(3);", "select count(*) || \" rows\" from t;"))},
			{Name: "import", Rare: true, Doc: "many rows, and an index that spills into a temporary file", Do: query("done", "pragma cache_size=50; pragma temp_store=file;", fill, "create index i on t(x); select \"done\";")},
			{Name: "wal", Rare: true, Doc: "a log before the database (shared memory), and a checkpoint", Do: query("0|", "pragma journal_mode=wal;", fill, "pragma wal_checkpoint(truncate);")},
			{Name: "backup", Rare: true, Doc: "an online backup, checked", Do: query("ok", ".backup /srv/db/copy.db", "attach \"/srv/db/copy.db\" as c; pragma c.integrity_check;")},
			{Name: "vacuum", Rare: true, Doc: "rows are deleted, the database is written anew", Do: query("vacuumed", "pragma journal_mode=delete; delete from t where id % 2;", "vacuum;", "select \"vacuumed\";")},
			{Name: "mmap", Rare: true, Doc: "read through a mapping", Do: query("sum", "pragma mmap_size=30000000;", "select sum(length(x)) || \" sum\" from t;")},
			{Name: "dump", Rare: true, Doc: "dumped into a file by a pipe, and read again", Do: work("20", "rm -f /srv/db/again.db; sqlite3 /srv/db/one.db .dump | gzip >/srv/db/dump.gz && zcat /srv/db/dump.gz | sqlite3 /srv/db/again.db && sqlite3 /srv/db/again.db 'select 20 from t limit 1'")},
		},
	})
}
