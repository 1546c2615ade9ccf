// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const readyIn = 20 * time.Second

// load of one service that goes on until it is stopped.
type load struct {
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	requests int
	errs     []error
}

// startLoad of a service. Errors are counted: nobody may notice that calls are taken away.
func (s *service) startLoad(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	l := &load{stop: stop, done: make(chan struct{})}
	s.load = l
	go func() {
		defer close(l.done)
		for ctx.Err() == nil {
			n, err := s.work(ctx, s)
			if err == nil && s.jobs != nil {
				err = s.jobs(ctx, s)
			}
			l.mu.Lock()
			l.requests += n
			if err != nil && ctx.Err() == nil {
				l.errs = append(l.errs, err)
			}
			l.mu.Unlock()
		}
	}()
}

// stopLoad and wait for its end.
func (s *service) stopLoad() {
	if s.load != nil {
		s.load.stop()
		<-s.load.done
	}
}

func (l *load) count() (requests int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests, errors.Join(l.errs...)
}

func (s *service) cli(ctx context.Context, args ...string) (string, error) {
	out, err := output(ctx, "redis-cli", append([]string{"-p", s.port}, args...)...)
	return strings.TrimSpace(out), err
}

func pingRedis(ctx context.Context, s *service) error {
	out, err := s.cli(ctx, "ping")
	if err == nil && out != "PONG" {
		err = fmt.Errorf("redis says %q", out)
	}
	return err
}

func workRedis(ctx context.Context, s *service) (int, error) {
	const requests, kinds = 2000, "ping,set,get,incr,lpush,lrange_100,mset"
	out, err := output(ctx, "redis-benchmark", "-p", s.port, "--csv", "-t", kinds, "-n", strconv.Itoa(requests), "-c", "20")
	if err != nil {
		return 0, err
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	return max(len(rows)-1, 0) * requests, err
}

func jobsRedis(ctx context.Context, s *service) error {
	for _, question := range []string{"info", "dbsize", "slowlog get", "client list", "config get maxmemory"} {
		if _, err := s.cli(ctx, strings.Fields(question)...); err != nil {
			return err
		}
	}
	return nil
}

func getNginx(ctx context.Context, s *service) error { return get(ctx, http.DefaultClient, s) }

func get(ctx context.Context, client *http.Client, s *service) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+s.port+"/", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var body bytes.Buffer
	if _, err := io.Copy(&body, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || !strings.Contains(body.String(), "nginx") {
		return fmt.Errorf("nginx answers %s", answer.Status)
	}
	return nil
}

// workNginx with a connection for every twenty requests.
func workNginx(ctx context.Context, s *service) (n int, err error) {
	for range 20 {
		client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
		for range 20 {
			if err := get(ctx, client, s); err != nil {
				return n, err
			}
			n++
		}
		client.CloseIdleConnections()
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return n, err
		}
	}
	return n, nil
}

// client of PostgreSQL: its arguments.
func (s *service) client(args ...string) []string {
	return append([]string{"-h", "127.0.0.1", "-p", s.port, "-U", "postgres"}, append(args, "postgres")...)
}

func (s *service) psql(ctx context.Context, query string) (string, error) {
	program := filepath.Join(filepath.Dir(s.config.Entrypoint[0]), "psql")
	out, err := output(ctx, program, s.client("-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", query)...)
	return strings.TrimSpace(out), err
}

func selectOne(ctx context.Context, s *service) error {
	_, err := s.psql(ctx, "select 1")
	return err
}

func workPostgres(ctx context.Context, s *service) (int, error) {
	const transactions = 400
	program := filepath.Join(filepath.Dir(s.config.Entrypoint[0]), "pgbench")
	out, err := output(ctx, program, s.client("-n", "-c", "4", "-t", strconv.Itoa(transactions/4))...)
	if err == nil && !strings.Contains(out, "failed transactions: 0 ") {
		err = fmt.Errorf("pgbench: %s", out)
	}
	return transactions, err
}

func jobsPostgres(ctx context.Context, s *service) error {
	for _, query := range []string{
		"checkpoint", "vacuum analyze pgbench_accounts", "select count(*) from pg_stat_activity",
		"create temp table t as select g from generate_series(1, 20000) g; select g from t order by g desc limit 3", "show all",
	} {
		if _, err := s.psql(ctx, query); err != nil {
			return err
		}
	}
	return nil
}
