// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// patience with one answer. Whoever waits longer has lost a connection.
const patience = 5 * time.Second

// session is one connection to a service, and how to use it.
type session struct {
	conn     net.Conn
	in       *bufio.Reader
	exchange func(*session) error
}

func openSession(port int, exchange func(*session) error) (*session, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), patience)
	if err != nil {
		return nil, err
	}
	return &session{conn, bufio.NewReader(conn), exchange}, nil
}

// once asks for something and reads the answer.
func (s *session) once() error {
	if err := s.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return s.exchange(s)
}

func (s *session) close() error { return s.conn.Close() }

// askOnce on a connection of its own.
func askOnce(open func(int) (*session, error), port int) error {
	s, err := open(port)
	if err != nil {
		return err
	}
	return errors.Join(s.once(), s.close())
}

func redisExchange(s *session) error {
	if _, err := io.WriteString(s.conn, "PING\r\n"); err != nil {
		return err
	}
	line, err := s.in.ReadString('\n')
	if err == nil && line != "+PONG\r\n" {
		err = fmt.Errorf("redis answers %q", line)
	}
	return err
}

func httpExchange(s *session) error {
	if _, err := io.WriteString(s.conn, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the server answers %s", answer.Status)
	}
	return errors.Join(err, answer.Body.Close())
}

// echoExchange is with this program's own server.
func echoExchange(s *session) error {
	if _, err := io.WriteString(s.conn, "sixteen bytes ok"); err != nil {
		return err
	}
	var got [16]byte
	_, err := io.ReadFull(s.in, got[:])
	return err
}

// openPostgres waits until the session is ready for a query.
func openPostgres(port int) (*session, error) {
	s, err := openSession(port, postgresExchange)
	if err != nil {
		return nil, err
	}
	text := "user\x00postgres\x00database\x00postgres\x00\x00"
	message := binary.BigEndian.AppendUint32(nil, uint32(8+len(text)))
	message = append(binary.BigEndian.AppendUint32(message, 3<<16), text...) // version 3.0 of the protocol
	err = s.conn.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = s.conn.Write(message)
	}
	if err == nil {
		err = postgresReady(s)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func postgresExchange(s *session) error {
	if _, err := io.WriteString(s.conn, "Q\x00\x00\x00\x0dSELECT 1\x00"); err != nil {
		return err
	}
	return postgresReady(s)
}

func postgresReady(s *session) error {
	for {
		var head [5]byte
		if _, err := io.ReadFull(s.in, head[:]); err != nil {
			return err
		}
		if _, err := s.in.Discard(int(binary.BigEndian.Uint32(head[1:])) - 4); err != nil {
			return err
		}
		switch head[0] {
		case 'Z':
			return nil
		case 'E':
			return errors.New("it answers with an error")
		}
	}
}
