// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/seccomp"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// underFilter is this program again, which loads the filter and becomes the command. The program travels in a memfd: no
// file that somebody else could write is involved.
func underFilter(path string, args []string, prog []bpf.RawInstruction) (command, error) {
	self, err := os.Executable()
	if err != nil {
		return command{}, fmt.Errorf("find this executable: %w", err)
	}
	fd, err := unix.MemfdCreate("whittle-filter", unix.MFD_CLOEXEC)
	if err != nil {
		return command{}, fmt.Errorf("keep the filter: %w", err)
	}
	f := os.NewFile(uintptr(fd), "filter")
	var buf bytes.Buffer
	for _, ins := range prog {
		if err := binary.Write(&buf, binary.NativeEndian, ins); err != nil {
			panic(err) // fixed-size values into memory
		}
	}
	if _, err := f.WriteAt(buf.Bytes(), 0); err != nil {
		f.Close()
		return command{}, fmt.Errorf("keep the filter: %w", err)
	}
	return command{path: self, argv: append([]string{"whittle", "exec-under", "--", path}, args...), extra: f}, nil
}

// newExecUnder is the other side of underFilter: PATH ARGV0 ARGS… with the filter on descriptor 3.
func newExecUnder(*app) *cobra.Command {
	return &cobra.Command{
		Use:    "exec-under -- PATH ARGV…",
		Short:  "become a command under the filter on descriptor 3 (called by whittle run)",
		Hidden: true,
		Args:   cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			f := os.NewFile(3, "filter")
			raw, err := io.ReadAll(io.NewSectionReader(f, 0, 8*unix.BPF_MAXINSNS+1))
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("read the filter: %w", err)
			}
			if len(raw) == 0 || len(raw)%8 != 0 {
				return errors.New("read the filter: it is not one; whittle run calls this command")
			}
			prog := make([]bpf.RawInstruction, len(raw)/8)
			if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, prog); err != nil {
				return fmt.Errorf("read the filter: %w", err)
			}
			signal.Reset()
			return seccomp.Exec(prog, seccomp.Options{}, args[0], args[1:], os.Environ())
		},
	}
}
