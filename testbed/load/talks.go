// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// mostBody is more than any answer that is asked for.
const mostBody = 16 << 20

// HTTP gets a path; the answer has to be a 200, and want in its body.
func HTTP(path, want string) Talk {
	request := "GET " + path + " HTTP/1.1\r\nHost: twins\r\n\r\n"
	return func(conn net.Conn, r *bufio.Reader, _ int) error {
		status, body, err := Exchange(conn, r, request)
		if err != nil {
			return err
		}
		if status != http.StatusOK || !strings.Contains(body, want) {
			return fmt.Errorf("GET %s is answered %d %.100q, want %q", path, status, body, want)
		}
		return nil
	}
}

// Exchange a request of HTTP/1.1 for its answer.
func Exchange(conn net.Conn, r *bufio.Reader, request string) (status int, body string, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostBody))
	return resp.StatusCode, string(text), err
}

// Memcached sets a value and gets it, as often as depth says before it reads an answer.
func Memcached(depth int) Talk {
	return func(conn net.Conn, r *bufio.Reader, n int) error {
		var send, want strings.Builder
		for i := range max(depth, 1) {
			key := fmt.Sprintf("k%d", (n+i)%1000)
			fmt.Fprintf(&send, "set %s 0 0 5\r\nvalue\r\nget %s\r\n", key, key)
			fmt.Fprintf(&want, "STORED\r\nVALUE %s 0 5\r\nvalue\r\nEND\r\n", key)
		}
		return exact(conn, r, send.String(), want.String())
	}
}

// Redis sets a value and gets it, as often as depth says before it reads an answer.
func Redis(depth int) Talk {
	return func(conn net.Conn, r *bufio.Reader, n int) error {
		var send, want strings.Builder
		for i := range max(depth, 1) {
			key := fmt.Sprintf("k%d", (n+i)%1000)
			fmt.Fprintf(&send, "SET %s value\r\nGET %s\r\n", key, key)
			want.WriteString("+OK\r\n$5\r\nvalue\r\n")
		}
		return exact(conn, r, send.String(), want.String())
	}
}

func exact(conn net.Conn, r *bufio.Reader, send, want string) error {
	if _, err := io.WriteString(conn, send); err != nil {
		return err
	}
	got := make([]byte, len(want))
	n, err := io.ReadFull(r, got[:1]) // an EOF before anything is another than one in the middle
	for n < len(got) && err == nil && strings.HasPrefix(want, string(got[:n])) {
		var more int
		more, err = r.Read(got[n:])
		n += more
	}
	if !strings.HasPrefix(want, string(got[:n])) {
		return fmt.Errorf("%.40q is answered %.100q", send, got[:n])
	}
	if n > 0 && errors.Is(err, io.EOF) && n < len(got) {
		return io.ErrUnexpectedEOF
	}
	if n == len(got) {
		return nil
	}
	return err
}

// PostgresStart opens a session of a user that needs no password: the Setup of a load.
func PostgresStart(user, database string) Talk {
	return func(conn net.Conn, r *bufio.Reader, _ int) error {
		body := binary.BigEndian.AppendUint32(nil, 3<<16) // the protocol's version
		body = append(body, "user\x00"+user+"\x00database\x00"+database+"\x00\x00"...)
		packet := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
		if _, err := conn.Write(append(packet, body...)); err != nil {
			return err
		}
		_, err := postgresAnswer(r)
		return err
	}
}

// Postgres runs a statement; {n} in it is the number of the request, want has to be in a row or in the command's tag.
func Postgres(statement, want string) Talk {
	return func(conn net.Conn, r *bufio.Reader, n int) error {
		text := strings.ReplaceAll(statement, "{n}", fmt.Sprint(n)) + "\x00"
		packet := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(text)+4))
		if _, err := conn.Write(append(packet, text...)); err != nil {
			return err
		}
		got, err := postgresAnswer(r)
		if err == nil && !strings.Contains(got, want) {
			err = fmt.Errorf("%.60q is answered %.100q, want %q", statement, got, want)
		}
		return err
	}
}

// postgresAnswer reads messages until the server is ready for the next statement, and returns the rows and tags.
func postgresAnswer(r *bufio.Reader) (string, error) {
	var rows strings.Builder
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return "", err
		}
		length := binary.BigEndian.Uint32(head[1:])
		if length < 4 || length > mostBody {
			return "", fmt.Errorf("PostgreSQL sends a message of %d bytes", length)
		}
		body := make([]byte, length-4)
		if _, err := io.ReadFull(r, body); err != nil {
			return "", err
		}
		switch head[0] {
		case 'Z':
			return rows.String(), nil
		case 'E':
			return "", fmt.Errorf("PostgreSQL: %.200q", body)
		case 'R':
			if len(body) < 4 || binary.BigEndian.Uint32(body) != 0 {
				return "", errors.New("PostgreSQL wants a password")
			}
		case 'D', 'C':
			rows.Write(body)
		}
	}
}
