// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// FastCGI asks one request of a responder (https://fastcgi-archives.github.io/FastCGI_Specification.html), and gives what it wrote:
// the answer, and its complaints among it. Parameters are shorter than 128 bytes.
func FastCGI(conn io.ReadWriter, parameters map[string]string) (string, error) {
	const begin, end, params, stdin = 1, 3, 4, 5
	var list, b bytes.Buffer
	for name, value := range parameters {
		list.Write([]byte{byte(len(name)), byte(len(value))})
		list.WriteString(name + value)
	}
	record := func(kind byte, content []byte) {
		b.Write([]byte{1, kind, 0, 1, byte(len(content) >> 8), byte(len(content)), 0, 0})
		b.Write(content)
	}
	record(begin, []byte{0, 1, 0, 0, 0, 0, 0, 0}) // a responder; the connection is closed
	record(params, list.Bytes())
	record(params, nil)
	record(stdin, nil)
	if _, err := conn.Write(b.Bytes()); err != nil {
		return "", err
	}
	var out strings.Builder
	for {
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return out.String(), fmt.Errorf("read an answer: %w: %.500s", err, out.String())
		}
		content := make([]byte, int(binary.BigEndian.Uint16(head[4:]))+int(head[6]))
		if _, err := io.ReadFull(conn, content); err != nil {
			return out.String(), err
		}
		if head[1] == end {
			return out.String(), nil
		}
		out.Write(content[:len(content)-int(head[6])])
	}
}
