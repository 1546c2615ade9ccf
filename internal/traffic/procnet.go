// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds on what one namespace may make us read. Listening sockets come first in /proc/net/tcp.
const (
	maxRows = 1 << 16
	maxLine = 4096
)

// row of a table of sockets in /proc/net.
type row struct {
	inode uint64
	local netip.AddrPort
	name  string // of a unix socket
}

// States as /proc/net has them.
const (
	stateClosed = "07" // of UDP: bound, and to nobody connected
	stateListen = "0A"
)

// readInet reads a table of /proc/net (tcp, udp and their kind): the rows in this state.
func readInet(r io.Reader, state string) ([]row, error) {
	var out []row
	err := eachLine(r, func(line string) (bool, error) {
		f := strings.Fields(line)
		if len(f) < 10 {
			return false, fmt.Errorf("a line of %d fields", len(f))
		}
		if f[3] != state {
			// Of TCP nothing that listens comes after the first that does not.
			return state != stateListen, nil
		}
		local, err := parseLocal(f[1])
		if err != nil {
			return false, err
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil {
			return false, fmt.Errorf("inode: %w", err)
		}
		out = append(out, row{inode: inode, local: local})
		return true, nil
	})
	return out, err
}

// listenFlag is __SO_ACCEPTCON, which a listening unix socket has.
const listenFlag = 1 << 16

// readUnix reads /proc/net/unix: the sockets that listen.
func readUnix(r io.Reader) ([]row, error) {
	var out []row
	err := eachLine(r, func(line string) (bool, error) {
		// Num RefCount Protocol Flags Type St Inode Path; the path may hold anything but a new line.
		f := strings.SplitN(strings.Join(strings.Fields(line), " "), " ", 8)
		if len(f) < 7 {
			return true, nil // a path with a new line in it
		}
		flags, err := strconv.ParseUint(f[3], 16, 64)
		if err != nil || flags&listenFlag == 0 {
			return true, nil
		}
		inode, err := strconv.ParseUint(f[6], 10, 64)
		if err != nil {
			return true, nil
		}
		name := "(without a name)"
		if len(f) == 8 {
			name = strconv.Quote(f[7])
		}
		out = append(out, row{inode: inode, name: name})
		return true, nil
	})
	return out, err
}

// readSCTP reads /proc/net/sctp/eps, which has the inode next to last but the addresses at the end.
func readSCTP(r io.Reader) ([]row, error) {
	var out []row
	err := eachLine(r, func(line string) (bool, error) {
		// ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS
		f := strings.Fields(line)
		if len(f) < 8 || f[3] != "10" {
			return true, nil
		}
		inode, err := strconv.ParseUint(f[7], 10, 64)
		if err != nil {
			return true, nil
		}
		out = append(out, row{inode: inode, name: "port " + strconv.Quote(f[5])})
		return true, nil
	})
	return out, err
}

// eachLine but the first, which is the heading, until f says no.
func eachLine(r io.Reader, f func(string) (bool, error)) error {
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, maxLine), maxLine)
	for n := 0; scan.Scan(); n++ {
		if n == 0 {
			continue
		}
		if n > maxRows {
			return fmt.Errorf("more than %d sockets", maxRows)
		}
		more, err := f(scan.Text())
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return scan.Err()
}

// parseLocal reads an address as /proc/net has it: 32-bit words in the machine's byte order, in hexadecimal.
func parseLocal(s string) (netip.AddrPort, error) {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	for word := 0; word < len(raw); word += 4 {
		binary.NativeEndian.PutUint32(raw[word:], binary.BigEndian.Uint32(raw[word:]))
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("no port: %q", s)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(number)), nil
}
