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
)

// get a path by HTTP/1.0 and be content with an answer that is whole.
func get(path, contains string) ask {
	return func(conn net.Conn, _ int) error {
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n", path); err != nil {
			return err
		}
		answer, err := readAll(conn)
		if err != nil {
			return err
		}
		head, body, found := bytes.Cut(answer, []byte("\r\n\r\n"))
		length := ""
		for line := range strings.Lines(string(head)) {
			if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "content-length") {
				length = strings.TrimSpace(value)
			}
		}
		switch {
		case !found || !bytes.Contains(head, []byte(" 200 ")):
			return fmt.Errorf("answered %q", first(answer))
		case length != "" && length != strconv.Itoa(len(body)):
			return fmt.Errorf("cut off: %d of %s bytes", len(body), length)
		case !bytes.Contains(body, []byte(contains)):
			return fmt.Errorf("answered %q", first(body))
		}
		return nil
	}
}

func first(b []byte) []byte { return b[:min(len(b), 80)] }

// counted are writes that a service has acknowledged, by worker.
type counted [64]atomic.Int64

// increment a key of Redis for each worker.
func increment(done *counted) ask {
	return func(conn net.Conn, worker int) error {
		if _, err := fmt.Fprintf(conn, "INCR worker:%d\r\n", worker); err != nil {
			return err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
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
func insert(done *counted) ask {
	return func(conn net.Conn, worker int) error {
		r := bufio.NewReader(conn)
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
