// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"errors"
	"fmt"
	"io"
)

var (
	errBudget = errors.New("more than the limit of bytes")
	errBeyond = errors.New("beyond the end of the file")
)

// source reads a file as long as the bytes last. Overlapping parts are paid for each time.
type source struct {
	r          io.ReaderAt
	size, left uint64
}

// read n bytes at off. It allocates nothing that the file does not have.
func (s *source) read(off, n uint64) ([]byte, error) {
	if off > s.size || n > s.size-off {
		return nil, errBeyond
	}
	if n > s.left {
		return nil, errBudget
	}
	s.left -= n
	b := make([]byte, n)
	return b, s.fill(b, off)
}

// fill reads into b without asking the budget.
func (s *source) fill(b []byte, off uint64) error {
	n, err := s.r.ReadAt(b, int64(off))
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errBeyond // it was made shorter meanwhile
	}
	return fmt.Errorf("read at %d: %w", off, err)
}
