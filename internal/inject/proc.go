// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a process can make large (its maps, its threads, its name) is read up to these bounds.
const (
	maxProcFile = 16 << 20 // 65,530 mappings of a long path each are less
	maxThreads  = 1 << 16
)

// readFile up to a bound. It makes plain system calls: the tracer's thread has a file table of its own, which the Go runtime
// knows nothing of.
func readFile(path string, bound int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var all []byte
	chunk := make([]byte, min(bound, 1<<14))
	for len(all) < bound {
		n, err := unix.Read(fd, chunk)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", path, err)
		case n == 0:
			return all, nil
		}
		all = append(all, chunk[:n]...)
	}
	return nil, fmt.Errorf("read %s: it is larger than %d bytes", path, bound)
}

// writeFile that exists.
func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return fmt.Errorf("write %q to %s: %w", text, path, err)
	}
	return nil
}

// absent says whether an error means that the process or thread has gone.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, errGone)
}

// stat is what /proc/PID/stat says.
type stat struct {
	state byte
	ppid  int
	start uint64
}

func readStat(path string) (s stat, err error) {
	raw, err := readFile(path, 1<<14)
	if err != nil {
		return s, err
	}
	return parseStat(raw)
}

// parseStat finds the fields after the last parenthesis: the name before it is the process's own choice.
func parseStat(raw []byte) (s stat, err error) {
	_, rest, ok := bytes.Cut(raw[max(0, bytes.LastIndexByte(raw, ')')):], []byte(")"))
	f := bytes.Fields(rest)
	if !ok || len(f) < 20 || len(f[0]) != 1 {
		return s, errors.New("read a process's stat: it is not one")
	}
	s.state = f[0][0]
	ppid, err1 := strconv.Atoi(string(f[1]))
	start, err2 := strconv.ParseUint(string(f[19]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return s, fmt.Errorf("read a process's stat: %w", err)
	}
	s.ppid, s.start = ppid, start
	return s, nil
}

// status is what /proc/PID/status says. Fields that the kernel does not give are 0 (Seccomp_filters: before 5.9).
type status struct {
	name       string
	state      byte
	tgid       int
	tracer     int
	threads    int
	filters    int
	noNewPrivs bool
	admin      bool // CAP_SYS_ADMIN in its user namespace
}

func readStatus(path string) (status, error) {
	raw, err := readFile(path, 1<<16)
	if err != nil {
		return status{}, err
	}
	return parseStatus(raw), nil
}

func parseStatus(raw []byte) (s status) {
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		n, _ := strconv.Atoi(value) // of the fields below, only numbers are used
		switch key {
		case "Name":
			s.name = value
		case "State":
			if value != "" {
				s.state = value[0]
			}
		case "Tgid":
			s.tgid = n
		case "TracerPid":
			s.tracer = n
		case "Threads":
			s.threads = n
		case "Seccomp_filters":
			s.filters = n
		case "CapEff":
			caps, _ := strconv.ParseUint(value, 16, 64)
			s.admin = caps&(1<<unix.CAP_SYS_ADMIN) != 0
		case "NoNewPrivs":
			s.noNewPrivs = n == 1
		}
	}
	return s
}

func procPath(pid int, rest string) string { return "/proc/" + strconv.Itoa(pid) + rest }

func taskPath(pid, tid int, rest string) string {
	return procPath(pid, "/task/"+strconv.Itoa(tid)+rest)
}

// numbers that are names in a directory.
func numbersIn(path string, bound int) ([]int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var out []int
	var names []string
	buf := make([]byte, 1<<14)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", path, err)
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if v, err := strconv.Atoi(name); err == nil && v > 0 {
				out = append(out, v)
			}
		}
		if len(out) > bound {
			return nil, fmt.Errorf("list %s: more than %d", path, bound)
		}
	}
	slices.Sort(out)
	return out, nil
}

// mountNS is the inode of a process's mount namespace.
func mountNS(pid int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(procPath(pid, "/ns/mnt"), &st); err != nil {
		return 0, fmt.Errorf("find the mount namespace of %d: %w", pid, err)
	}
	return st.Ino, nil
}

// memory of a process: /proc/PID/mem. It stays that of the program that ran when it was opened.
type memory int

func openMemory(pid int) (memory, error) {
	fd, err := unix.Open(procPath(pid, "/mem"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the memory of %d: %w", pid, err)
	}
	return memory(fd), nil
}

func (m memory) read(b []byte, at uint64) bool {
	if at > 1<<63-1 {
		return false
	}
	n, err := unix.Pread(int(m), b, int64(at))
	return err == nil && n == len(b)
}

func (m memory) write(b []byte, at uint64) error {
	if n, err := unix.Pwrite(int(m), b, int64(at)); err != nil || n != len(b) {
		return fmt.Errorf("write %d bytes to the process's memory: %d written, %w", len(b), n, errors.Join(err))
	}
	return nil
}

func (m memory) close() {
	if m >= 0 {
		unix.Close(int(m))
	}
}
