// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const redisConf = `port 6379
bind 127.0.0.1
dir /data
save 3600 1
appendonly no
loglevel notice
`

func redis() Service {
	one := func(args ...string) func(context.Context, *Instance) error {
		return func(ctx context.Context, i *Instance) error { _, err := i.redis(ctx, args...); return err }
	}
	return Service{
		Name: "redis", Doc: "key-value store", Packages: []string{"redis-server", "redis-tools"},
		Args: []string{"/usr/bin/redis-server", "/etc/redis/test.conf"}, User: "redis",
		Dirs:  []Dir{{Path: "/data", Owner: "redis"}},
		Files: []File{{Path: "/etc/redis/test.conf", Text: redisConf, Owner: "redis"}},
		Ready: one("PING"),
		Ops: []Op{
			{Name: "load", Doc: "SET, GET, INCR, LPUSH, ZADD, EXPIRE, pipelines, by several clients", Do: redisLoad},
			{Name: "bgsave", Rare: true, Doc: "BGSAVE forks and writes a dump", Do: redisSave},
			{Name: "aof-rewrite", Rare: true, Doc: "appendonly is switched on, BGREWRITEAOF", Do: redisAOF},
			{Name: "info", Rare: true, Doc: "INFO all, MEMORY DOCTOR, LATENCY DOCTOR", Do: func(ctx context.Context, i *Instance) error {
				_, doctor := i.redis(ctx, "MEMORY", "DOCTOR")
				text, err := i.redis(ctx, "INFO", "all")
				if !strings.Contains(text, "used_cpu_user_children") {
					err = errors.Join(err, errors.New("INFO says nothing of the CPU"))
				}
				return errors.Join(err, doctor)
			}},
			{Name: "config", Rare: true, Doc: "CONFIG SET maxclients, bind and port, CONFIG REWRITE", Do: redisConfig},
			{Name: "slowlog", Rare: true, Doc: "all commands are slow, SLOWLOG GET", Do: func(ctx context.Context, i *Instance) error {
				for _, args := range [][]string{{"CONFIG", "SET", "slowlog-log-slower-than", "0"}, {"GET", "slow-one"}} {
					if _, err := i.redis(ctx, args...); err != nil {
						return err
					}
				}
				text, err := i.redis(ctx, "SLOWLOG", "GET", "20")
				if !strings.Contains(text, "slow-one") {
					err = errors.Join(err, errors.New("the command is not in the slow log"))
				}
				return err
			}},
			{Name: "memory-growth", Rare: true, Doc: "64 MB of values, MEMORY PURGE", Do: redisGrowth},
			{Name: "failover", Rare: true, Doc: "it becomes the replica of a second server, and is promoted", Do: redisFailover},
			{Name: "script", Rare: true, Doc: "a Lua script, a blocked client, publish and subscribe", Do: func(ctx context.Context, i *Instance) error {
				got, err := i.redis(ctx, "EVAL", "return redis.call('INCR', KEYS[1]) + 40", "1", "lua")
				if err == nil && got != "41" {
					err = fmt.Errorf("the script returns %s", got)
				}
				_, publish := i.redis(ctx, "PUBLISH", "c", "m")
				return errors.Join(err, publish)
			}},
			{Name: "shutdown-save", Rare: true, Last: true, Doc: "SHUTDOWN SAVE", Do: func(ctx context.Context, i *Instance) error {
				_, _ = i.redis(ctx, "SHUTDOWN", "SAVE") // the connection is closed
				return i.AwaitEnd(ctx)
			}},
		},
	}
}

// redis command to the server at 6379.
func (i *Instance) redis(ctx context.Context, args ...string) (string, error) {
	return i.redisAt(ctx, "127.0.0.1:6379", args...)
}

func (i *Instance) redisAt(ctx context.Context, address string, args ...string) (string, error) {
	conn, err := i.Dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return redisCommand(conn, bufio.NewReader(conn), args...)
}

func redisCommand(conn net.Conn, r *bufio.Reader, args ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return "", err
	}
	answer, err := redisAnswer(r)
	if err != nil {
		return "", fmt.Errorf("redis: %s: %w", strings.Join(args[:min(2, len(args))], " "), err)
	}
	return answer, nil
}

// redisAnswer of RESP 2; the elements of an array are joined by spaces.
func redisAnswer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return "", errors.New("empty answer")
	}
	n, _ := strconv.Atoi(line[1:])
	switch line[0] {
	case '-':
		return "", errors.New(line[1:])
	case '$':
		if n < 0 {
			return "", nil
		}
		text := make([]byte, n+2)
		_, err := io.ReadFull(r, text)
		return string(text[:n]), err
	case '*':
		var all []string
		for range n {
			one, err := redisAnswer(r)
			if err != nil {
				return "", err
			}
			all = append(all, one)
		}
		return strings.Join(all, " "), nil
	}
	return line[1:], nil
}

func redisLoad(ctx context.Context, i *Instance) error {
	for client := range 4 {
		conn, err := i.Dial(ctx, "tcp", "127.0.0.1:6379")
		if err != nil {
			return err
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for n := range 200 {
			key := fmt.Sprintf("k%d-%d", client, n%50)
			for _, args := range [][]string{
				{"SET", key, strings.Repeat("v", n)}, {"GET", key}, {"INCR", "counter"}, {"LPUSH", "list" + key, key}, {"ZADD", "z", "1", key},
				{"EXPIRE", key, "1"}, {"HSET", "h" + key, "f", "v"}, {"DEL", "list" + key},
			} {
				if _, err := redisCommand(conn, r, args...); err != nil {
					return err
				}
			}
		}
	}
	_, err := i.redis(ctx, "SET", "kept", "yes")
	return err
}

func redisSave(ctx context.Context, i *Instance) error {
	before, err := i.redis(ctx, "LASTSAVE")
	if err != nil {
		return err
	}
	if _, err := i.redis(ctx, "BGSAVE"); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		now, err := i.redis(ctx, "LASTSAVE") // in seconds
		if err != nil {
			return err
		}
		info, err := i.redis(ctx, "INFO", "persistence")
		if err == nil && (!strings.Contains(info, "rdb_bgsave_in_progress:0") || !strings.Contains(info, "rdb_last_bgsave_status:ok")) {
			err = errors.New("BGSAVE is not done")
		}
		if st, missing := os.Stat(i.Path("/data/dump.rdb")); missing != nil || st.Size() == 0 || now < before {
			err = errors.Join(err, errors.New("no dump is written"))
		}
		return err
	})
}

func redisAOF(ctx context.Context, i *Instance) error {
	if _, err := i.redis(ctx, "CONFIG", "SET", "appendonly", "yes"); err != nil {
		return err
	}
	done := func() error {
		return Eventually(ctx, 20*time.Second, func() error {
			info, err := i.redis(ctx, "INFO", "persistence")
			if err != nil {
				return err
			}
			for _, want := range []string{"aof_enabled:1", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_last_bgrewrite_status:ok"} {
				if !strings.Contains(info, want) {
					return fmt.Errorf("INFO has no %s", want)
				}
			}
			return nil
		})
	}
	if err := done(); err != nil {
		return err
	}
	if _, err := i.redis(ctx, "BGREWRITEAOF"); err != nil {
		return err
	}
	if err := done(); err != nil {
		return err
	}
	entries, err := os.ReadDir(i.Path("/data/appendonlydir"))
	if err == nil && len(entries) < 2 {
		err = errors.New("there are no files of it")
	}
	return err
}

func redisConfig(ctx context.Context, i *Instance) error {
	for _, args := range [][]string{
		{"maxclients", "5000"}, {"maxmemory", "512mb"}, {"bind", "127.0.0.1 127.0.0.2"}, {"save", "3600 2"},
	} {
		if _, err := i.redis(ctx, append([]string{"CONFIG", "SET"}, args...)...); err != nil {
			return err
		}
	}
	if _, err := i.redisAt(ctx, "127.0.0.2:6379", "PING"); err != nil {
		return err
	}
	// It writes a new file beside the old one.
	if err := os.Chown(i.Path("/etc/redis"), i.uid(), i.uid()); err != nil {
		return err
	}
	if _, err := i.redis(ctx, "CONFIG", "REWRITE"); err != nil {
		return err
	}
	text, err := os.ReadFile(i.Path("/etc/redis/test.conf"))
	if err == nil && !strings.Contains(string(text), "maxclients 5000") {
		err = errors.New("the file has not changed")
	}
	return err
}

// uid of the service's user.
func (i *Instance) uid() int {
	uid, _, err := account(i.User)
	if err != nil {
		return 0
	}
	return int(uid)
}

func redisGrowth(ctx context.Context, i *Instance) error {
	value := strings.Repeat("0123456789abcdef", 1<<16) // 1 MB
	for n := range 64 {
		if _, err := i.redis(ctx, "APPEND", "big"+strconv.Itoa(n%8), value); err != nil {
			return err
		}
	}
	got, err := i.redis(ctx, "STRLEN", "big0")
	if err == nil && got != "8388608" {
		err = fmt.Errorf("it has grown to %s", got)
	}
	for n := range 8 {
		_, unlink := i.redis(ctx, "UNLINK", "big"+strconv.Itoa(n))
		err = errors.Join(err, unlink)
	}
	_, purge := i.redis(ctx, "MEMORY", "PURGE")
	return errors.Join(err, purge)
}

// redisFailover makes it the replica of a server outside of the container, and its master again.
func redisFailover(ctx context.Context, i *Instance) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("/var/tmp", "whittle-master-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		_, _ = i.Exec(ctx, "/usr/bin/redis-server", "--port", "6380", "--dir", dir, "--save", "", "--bind", "127.0.0.1")
	}()
	await := func(f func() error) error { return Eventually(ctx, 20*time.Second, f) }
	if err := await(func() error { _, err := i.redisAt(ctx, "127.0.0.1:6380", "SET", "from", "master"); return err }); err != nil {
		return err
	}
	if _, err := i.redis(ctx, "REPLICAOF", "127.0.0.1", "6380"); err != nil {
		return err
	}
	err = await(func() error {
		got, err := i.redis(ctx, "GET", "from")
		if err == nil && got != "master" {
			err = fmt.Errorf("it has %q of the master", got)
		}
		return err
	})
	if err != nil {
		return err
	}
	if _, err := i.redis(ctx, "REPLICAOF", "NO", "ONE"); err != nil {
		return err
	}
	_, err = i.redis(ctx, "SET", "promoted", "yes")
	return err
}
