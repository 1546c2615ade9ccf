// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal: what is written to tty can be read from screen.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return screen, tty
}

func TestProgress(t *testing.T) {
	screen, tty := terminal(t)
	stop := (&app{talk: tty}).progress("attaching to web")
	var seen strings.Builder
	read := func(until string) {
		buf := make([]byte, 256)
		for !strings.Contains(seen.String(), until) {
			n, err := screen.Read(buf)
			if err != nil {
				t.Fatalf("read the screen: %v after %q", err, seen.String())
			}
			seen.Write(buf[:n])
		}
	}
	read("\rwhittle: attaching to web … ")
	stop()
	fmt.Fprint(tty, "END")
	read("END")
	if !strings.HasSuffix(seen.String(), "\r\x1b[KEND") {
		t.Errorf("the screen has %q: the line was not taken back before the next word", seen.String())
	}
	var pipe bytes.Buffer
	(&app{talk: &pipe}).progress("attaching to web")()
	if pipe.Len() != 0 {
		t.Errorf("in a pipe it says %q", pipe.String())
	}
}
