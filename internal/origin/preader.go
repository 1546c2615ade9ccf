// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// preader reads at offsets, and counts.
type preader struct {
	fd   int
	read int64
	err  error
}

func (r *preader) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		k, err := unix.Pread(r.fd, b[n:], off+int64(n))
		if err != nil && !errors.Is(err, unix.EINTR) {
			r.err = os.NewSyscallError("pread", err)
			return n, r.err
		}
		if k <= 0 && err == nil {
			break
		}
		n += max(k, 0)
	}
	r.read += int64(n)
	return n, nil
}
