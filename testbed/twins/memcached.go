// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed/load"
)

const memcachedPath = "/usr/bin/memcached"

// memcachedFlags differ in the sanitizer alone, so that what is compared is the sanitizer. The distribution's own build has
// more in it (SASL, TLS): it is there as Stock.
var memcachedFlags = map[string]string{
	"production": "-O2 -g -w",
	"oracle":     "-O2 -g -w -fsanitize=address -fno-omit-frame-pointer",
}

func memcached(ctx context.Context, dir string) (Twin, error) {
	version, err := compiler(ctx)
	if err != nil {
		return Twin{}, err
	}
	release, err := output(ctx, "", "dpkg-query", "-W", "-f", "${Version}", "memcached")
	if err != nil {
		return Twin{}, fmt.Errorf("build memcached: %w; install it with `apt-get install memcached`", err)
	}
	source := "" // fetched when the first of the programs is not there
	t := Twin{Name: "memcached", Kind: "sanitizer", Port: 11211,
		command: func(port int) []string {
			return []string{"-u", "nobody", "-l", "127.0.0.1", "-p", strconv.Itoa(port), "-m", "64"}
		},
		talk: load.Memcached(1), rare: memcachedStats, heavy: load.Memcached(100),
	}
	files := contents{packages: []string{"dash", "netbase", "libevent-2.1-7"}}
	for _, build := range []string{"production", "oracle"} {
		flags := memcachedFlags[build]
		program, err := cached(dir, "memcached."+build, []string{version, release, flags}, func(path string) (err error) {
			if source == "" {
				if source, err = debianSource(ctx, dir, "memcached", release); err != nil {
					return err
				}
			}
			return memcachedMake(ctx, source, flags, path)
		})
		if err != nil {
			return Twin{}, err
		}
		files.programs = map[string]string{memcachedPath[1:]: program}
		made, err := bake(ctx, dir, memcachedImage(build), files)
		if err != nil {
			return Twin{}, err
		}
		if build == "production" {
			t.Production, t.program = made, program
		} else {
			t.Oracle, t.hardened = made, program
		}
	}
	t.Stock, err = bake(ctx, dir, memcachedImage("stock"), contents{packages: []string{"dash", "netbase", "memcached"}})
	return t, err
}

func memcachedImage(tag string) image.Config {
	config := image.Config{Name: "localhost/memcached:" + tag}
	config.Entrypoint, config.Cmd, config.StopSignal = []string{memcachedPath}, []string{"-u", "nobody"}, "SIGTERM"
	return config
}

// memcachedMake builds beside the source, which stays as it is. The generated files of the release are used: patches change
// dates, not what they are generated from.
func memcachedMake(ctx context.Context, source, flags, path string) error {
	dir := filepath.Dir(path)
	linker := ""
	if strings.Contains(flags, "-fsanitize=address") {
		linker = "-fsanitize=address"
	}
	if _, err := output(ctx, dir, filepath.Join(source, "configure"), "--disable-docs", "--disable-coverage",
		"CFLAGS="+flags, "LDFLAGS="+linker); err != nil {
		return fmt.Errorf("%w; it needs `apt-get install libevent-dev make`", err)
	}
	if _, err := output(ctx, dir, "make", "-j2", "ACLOCAL=:", "AUTOCONF=:", "AUTOMAKE=:", "AUTOHEADER=:", "memcached"); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "memcached"), path)
}

// memcachedStats asks for the process's times and memory, which takes calls that nothing else does.
func memcachedStats(conn net.Conn, r *bufio.Reader, _ int) error {
	if _, err := io.WriteString(conn, "stats\r\n"); err != nil {
		return err
	}
	rusage := false
	for {
		line, err := r.ReadString('\n')
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(line, "STAT rusage_user "):
			rusage = true
		case line == "END\r\n":
			if !rusage {
				return fmt.Errorf("stats has no rusage_user")
			}
			return nil
		case !strings.HasPrefix(line, "STAT "):
			return fmt.Errorf("stats is answered %.100q", line)
		}
	}
}
