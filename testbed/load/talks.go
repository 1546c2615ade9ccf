// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
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
		status, body, last, err := exchange(conn, r, request)
		if err != nil {
			return err
		}
		if status != http.StatusOK || !strings.Contains(body, want) {
			return fmt.Errorf("GET %s is answered %d %.100q, want %q", path, status, body, want)
		}
		if last {
			return fmt.Errorf("GET %s: %w", path, ErrLast)
		}
		return nil
	}
}

// Exchange a request of HTTP/1.1 for its answer.
func Exchange(conn net.Conn, r *bufio.Reader, request string) (status int, body string, err error) {
	status, body, _, err = exchange(conn, r, request)
	return status, body, err
}

// exchange tells also whether the service closes the connection after its answer.
func exchange(conn net.Conn, r *bufio.Reader, request string) (status int, body string, last bool, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, "", false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, "", false, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostBody))
	return resp.StatusCode, string(text), resp.Close, err
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
