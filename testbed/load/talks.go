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

// variants of a pipelined request are made once: the client is to be faster than the service.
const variants = 16

// Memcached sets so many values, and gets them all by one request. All sets but the last are sent with noreply: memcached
// sends each answer by a call of its own, and hundreds of small ones at once measure TCP and not the service.
func Memcached(values int) Talk {
	var send, want [variants]string
	for v := range variants {
		var set, get, got strings.Builder
		for i := range values {
			quiet := " noreply"
			if i == values-1 {
				quiet = ""
			}
			fmt.Fprintf(&set, "set k%d-%d 0 0 5%s\r\nvalue\r\n", v, i, quiet)
			fmt.Fprintf(&get, " k%d-%d", v, i)
			fmt.Fprintf(&got, "VALUE k%d-%d 0 5\r\nvalue\r\n", v, i)
		}
		send[v] = set.String() + "get" + get.String() + "\r\n"
		want[v] = "STORED\r\n" + got.String() + "END\r\n"
	}
	return func(conn net.Conn, r *bufio.Reader, n int) error {
		return exact(conn, r, send[n%variants], want[n%variants])
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
