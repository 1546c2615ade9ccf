// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loaded is what a client says of one sample.
type loaded struct {
	requests  int
	perSecond float64
	p50, p99  float64 // ms
}

const (
	pgTransactions = 1000 // of each of pgClients
	pgClients      = 4
	wrkConnections = 32
)

// client on the first CPU, before all other processes.
func client(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", favoured}, args...)...)
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", args[0], err, stderr.String())
	}
	return out.String(), nil
}

func redisLoad(ctx context.Context, i *instance) (l loaded, err error) {
	out, err := client(ctx, "redis-benchmark", "-h", "127.0.0.1", "-p", strconv.Itoa(i.port), "-t", "set,get",
		"-n", strconv.Itoa(redisRequests), "-c", "50", "-P", "1", "--csv")
	if err != nil {
		return l, err
	}
	records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(records) != 3 {
		return l, fmt.Errorf("read what redis-benchmark says: %d lines, %w", len(records), err)
	}
	// "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
	var inverse float64
	for _, r := range records[1:] {
		var v [3]float64
		for n, column := range []int{1, 4, 6} {
			if column >= len(r) {
				return l, errors.New("read what redis-benchmark says: it tells no percentiles")
			}
			if v[n], err = strconv.ParseFloat(r[column], 64); err != nil || v[n] <= 0 {
				return l, fmt.Errorf("read what redis-benchmark says: %q", r[column])
			}
		}
		inverse += 1 / v[0]
		l.p50, l.p99 = l.p50+v[1]/2, l.p99+v[2]/2
	}
	l.requests, l.perSecond = 2*redisRequests, 2/inverse
	return l, nil
}

var wrkSays = regexp.MustCompile(`(?s) 50% +([0-9.]+[a-z]+).* 99% +([0-9.]+[a-z]+).*\n +([0-9]+) requests in .*Requests/sec: +([0-9.]+)`)

func wrkLoad(ctx context.Context, i *instance) (l loaded, err error) {
	out, err := client(ctx, "wrk", "-t1", "-c", strconv.Itoa(wrkConnections), "-d1s", "--latency", fmt.Sprintf("http://127.0.0.1:%d/", i.port))
	if err != nil {
		return l, err
	}
	m := wrkSays.FindStringSubmatch(out)
	if m == nil || strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
		return l, fmt.Errorf("wrk says %s", out)
	}
	p50, err1 := time.ParseDuration(m[1])
	p99, err2 := time.ParseDuration(m[2])
	var err3, err4 error
	l.requests, err3 = strconv.Atoi(m[3])
	l.perSecond, err4 = strconv.ParseFloat(m[4], 64)
	l.p50, l.p99 = float64(p50)/1e6, float64(p99)/1e6
	return l, errors.Join(err1, err2, err3, err4)
}

var pgbenchSays = regexp.MustCompile(`\ntps = ([0-9.]+) `)

func pgbenchLoad(ctx context.Context, i *instance) (l loaded, err error) {
	dir, err := os.MkdirTemp("", "wpgbench")
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out, err := client(ctx, append([]string{"pgbench"}, pgbench(i.port, "-n", "-S", "-c", strconv.Itoa(pgClients), "-t", strconv.Itoa(pgTransactions),
		"--log", "--log-prefix", filepath.Join(dir, "log"))...)...)
	if err != nil {
		return l, err
	}
	m := pgbenchSays.FindStringSubmatch(out)
	if m == nil {
		return l, fmt.Errorf("pgbench says %s", out)
	}
	if l.perSecond, err = strconv.ParseFloat(m[1], 64); err != nil {
		return l, err
	}
	logs, err := filepath.Glob(filepath.Join(dir, "log*"))
	if err != nil {
		return l, err
	}
	var times []float64
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			return l, err
		}
		for line := range strings.Lines(string(text)) { // client, transaction, µs …
			if f := strings.Fields(line); len(f) > 2 {
				us, err := strconv.ParseFloat(f[2], 64)
				if err != nil {
					return l, err
				}
				times = append(times, us/1000)
			}
		}
	}
	if len(times) != pgClients*pgTransactions {
		return l, fmt.Errorf("pgbench logged %d of %d transactions", len(times), pgClients*pgTransactions)
	}
	l.requests, l.p50, l.p99 = len(times), median(times), quantile(times, 0.99)
	return l, nil
}

// runTime of everything in the container.
func (i *instance) runTime() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(i.cgroup, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read the container's CPU time: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if us, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(us), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, errors.New("read the container's CPU time: cpu.stat has none")
}

// favour gives all processes of the container the last CPU, before all others.
func (i *instance) favour() error {
	text, err := os.ReadFile(filepath.Join(i.cgroup, "cgroup.threads"))
	if err != nil {
		return fmt.Errorf("give %s a CPU: %w", i.name, err)
	}
	for word := range strings.FieldsSeq(string(text)) {
		tid, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		if err := favour(tid, runtime.NumCPU()-1); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("give %s a CPU: %w", i.name, err)
		}
	}
	return nil
}
