// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/whittle-sec/whittle/testbed/load"
)

// get a path by HTTP, over a connection that the service closes, and be content with an answer that is whole.
func get(path, contains string) load.Talk {
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path)
	return func(conn net.Conn, r *bufio.Reader, _ int) error {
		status, body, err := load.Exchange(conn, r, request)
		if err == nil && (status != 200 || !strings.Contains(body, contains)) {
			err = fmt.Errorf("answered %d %.80q", status, body)
		}
		return err
	}
}

func first(b []byte) []byte { return b[:min(len(b), 80)] }

// counted are writes that a service has acknowledged, by worker.
type counted [workers]atomic.Int64

// increment the worker's key of Redis.
func increment(done *counted, worker int) load.Talk {
	return func(conn net.Conn, r *bufio.Reader, _ int) error {
		if _, err := fmt.Fprintf(conn, "INCR worker:%d\r\n", worker); err != nil {
			return err
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		value, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(line, ":")), 10, 64)
		if err != nil || line[0] != ':' {
			return fmt.Errorf("redis says %q", line)
		}
		// One that failed may have been done all the same.
		if acknowledged := done[worker].Add(1); value < acknowledged {
			return fmt.Errorf("redis has lost writes: %d of %d", value, acknowledged)
		}
		return nil
	}
}

// insert a row into PostgreSQL for each request, by the simple query protocol, version 3.0, trusting.
func insert(done *counted, worker int) load.Talk {
	return func(conn net.Conn, r *bufio.Reader, _ int) error {
		startup := binary.BigEndian.AppendUint32(nil, 3<<16)
		startup = append(startup, "user\x00postgres\x00database\x00postgres\x00\x00"...)
		if err := send(conn, 0, startup); err != nil {
			return err
		}
		if err := untilReady(r); err != nil {
			return err
		}
		query := fmt.Sprintf("insert into renewals values (%d, %d)\x00", worker, done[worker].Load())
		if err := send(conn, 'Q', []byte(query)); err != nil {
			return err
		}
		if err := untilReady(r); err != nil {
			return err
		}
		done[worker].Add(1)
		return send(conn, 'X', nil)
	}
}

func send(w io.Writer, kind byte, body []byte) error {
	var m []byte
	if kind != 0 {
		m = append(m, kind)
	}
	m = binary.BigEndian.AppendUint32(m, uint32(len(body)+4))
	_, err := w.Write(append(m, body...))
	return err
}

// untilReady reads messages until PostgreSQL waits for a query.
func untilReady(r *bufio.Reader) error {
	for {
		kind, err := r.ReadByte()
		if err != nil {
			return err
		}
		var length uint32
		if err := binary.Read(r, binary.BigEndian, &length); err != nil {
			return err
		}
		if length < 4 || length > 1<<20 {
			return errors.New("not PostgreSQL's protocol")
		}
		body := make([]byte, length-4)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		switch kind {
		case 'E':
			return fmt.Errorf("postgres says %q", first(bytes.ReplaceAll(body, []byte{0}, []byte{' '})))
		case 'Z':
			return nil
		}
	}
}
