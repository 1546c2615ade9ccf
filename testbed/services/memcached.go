// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

func memcached() Service {
	one := func(command string, want string) func(context.Context, *Instance) error {
		return func(ctx context.Context, i *Instance) error {
			got, err := i.memcached(ctx, command)
			if err == nil && !strings.Contains(got, want) {
				err = fmt.Errorf("%.40q answers %.200q, want %q", command, got, want)
			}
			return err
		}
	}
	return Service{
		Name: "memcached", Doc: "cache", Packages: []string{"memcached"},
		Args:  []string{"/usr/bin/memcached", "-u", "memcache", "-l", "127.0.0.1", "-m", "64", "-o", "modern"},
		Ready: one("version\r\n", "VERSION"),
		Ops: []Op{
			{Name: "load", Doc: "set, get, incr, touch, delete by several connections", Do: memcachedLoad},
			{Name: "stats", Rare: true, Doc: "stats, stats settings, slabs, items, conns", Do: func(ctx context.Context, i *Instance) (err error) {
				for _, what := range []string{"", " settings", " slabs", " items", " conns"} {
					err = errors.Join(err, one("stats"+what+"\r\n", "END")(ctx, i))
				}
				return err
			}},
			{Name: "flush", Rare: true, Doc: "flush_all", Do: one("flush_all\r\n", "OK")},
			{Name: "memory-growth", Rare: true, Doc: "90 MB of values, evictions", Do: memcachedGrowth},
			{Name: "cache-memlimit", Rare: true, Doc: "cache_memlimit and slabs automove", Do: func(ctx context.Context, i *Instance) error {
				return errors.Join(one("cache_memlimit 32\r\n", "OK")(ctx, i), one("slabs automove 1\r\n", "OK")(ctx, i))
			}},
			{Name: "dump", Rare: true, Doc: "lru_crawler metadump all", Do: func(ctx context.Context, i *Instance) error {
				return errors.Join(one("set dumped 0 0 1\r\nx\r\n", "STORED")(ctx, i), one("lru_crawler metadump all\r\n", "key=dumped")(ctx, i))
			}},
		},
	}
}

// memcached command; the answer is read up to the line that ends it.
func (i *Instance) memcached(ctx context.Context, command string) (string, error) {
	conn, err := i.Dial(ctx, "tcp", "127.0.0.1:11211")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, command); err != nil {
		return "", err
	}
	return memcachedAnswer(bufio.NewReader(conn))
}

func memcachedAnswer(r *bufio.Reader) (string, error) {
	var all strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return all.String(), err
		}
		all.WriteString(line)
		switch word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word {
		case "STAT", "VALUE":
			continue
		case "END", "STORED", "DELETED", "TOUCHED", "OK", "VERSION", "NOT_FOUND":
			return all.String(), nil
		case "ERROR", "CLIENT_ERROR", "SERVER_ERROR":
			return all.String(), errors.New(strings.TrimSpace(line))
		}
		if !strings.Contains(all.String(), "VALUE") && !strings.Contains(all.String(), "key=") {
			return all.String(), nil // a number
		}
	}
}

func memcachedLoad(ctx context.Context, i *Instance) error {
	for range 8 {
		conn, err := i.Dial(ctx, "tcp", "127.0.0.1:11211")
		if err != nil {
			return err
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for n := range 200 {
			for _, command := range []string{
				fmt.Sprintf("set k%d 0 60 5\r\nvalue\r\n", n), fmt.Sprintf("get k%d\r\n", n), "set n 0 0 1\r\n1\r\n", "incr n 1\r\n",
				fmt.Sprintf("touch k%d 10\r\n", n), fmt.Sprintf("delete k%d\r\n", n),
			} {
				if _, err := io.WriteString(conn, command); err != nil {
					return err
				}
				if _, err := memcachedAnswer(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func memcachedGrowth(ctx context.Context, i *Instance) error {
	value := strings.Repeat("v", 900_000)
	for n := range 100 {
		got, err := i.memcached(ctx, fmt.Sprintf("set big%d 0 0 %d\r\n%s\r\n", n, len(value), value))
		if err != nil || !strings.Contains(got, "STORED") {
			return fmt.Errorf("set answers %q: %w", got, err)
		}
	}
	got, err := i.memcached(ctx, "get big99\r\n")
	if err == nil && len(got) < len(value) {
		err = errors.New("the last value is not there")
	}
	return err
}
