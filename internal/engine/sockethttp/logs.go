// SPDX-License-Identifier: Apache-2.0

package sockethttp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/workload"
)

const (
	maxLog     = 1 << 20 // read of one
	maxLogLine = 500     // runes
	maxLines   = 1000
)

// Logs of the container at a path ("/containers/ID"), the last lines of them. Engines put a header of 8 bytes before each
// piece, or none when the container has a terminal.
func (c *Client) Logs(ctx context.Context, path string, lines int, framed bool) (string, error) {
	lines = max(1, min(lines, maxLines))
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answer, err := c.open(ctx, path+"/logs", url.Values{"stdout": {"true"}, "stderr": {"true"}, "tail": {strconv.Itoa(lines)}})
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxLog))
	if err != nil {
		return "", fmt.Errorf("read %s's answer: %w", c.Name, errors.Join(engine.ErrUnavailable, err))
	}
	if framed {
		data = unframe(data)
	}
	return printableLines(data, lines), nil
}

// unframe drops the headers: stream, three zeros, length in four bytes. What is no header ends it: the rest is as it is.
func unframe(data []byte) []byte {
	var out []byte
	for len(data) > 0 {
		if len(data) < 8 || data[0] > 2 || data[1]|data[2]|data[3] != 0 {
			return append(out, data...)
		}
		n := min(uint64(binary.BigEndian.Uint32(data[4:8])), uint64(len(data)-8))
		out, data = append(out, data[8:8+n]...), data[8+n:]
	}
	return out
}

func printableLines(data []byte, most int) string {
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return ""
	}
	all := strings.Split(text, "\n")
	all = all[max(0, len(all)-most):]
	for i, line := range all {
		line = strings.TrimSuffix(line, "\r")
		if !utf8.ValidString(line) {
			line = strings.ToValidUTF8(line, "?")
		}
		all[i] = workload.Printable(strings.ReplaceAll(line, "\t", "    "), maxLogLine)
	}
	return strings.Join(all, "\n")
}
