// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// With systemd the holder itself may be restarted: each listener lies in the service's store of descriptors too, under its id,
// next to a memfd that says what it is. Names are short (base 36), because systemd hands all of them back in one
// environment variable, which the kernel limits to 128 KiB.
const (
	notifyVar   = "NOTIFY_SOCKET"
	countsName  = "counts"
	storeBase   = 36
	maxStored   = 1 << 20 // bytes of a memfd
	notifyTime  = 2 * time.Second
	firstPassed = 3 // SD_LISTEN_FDS_START
)

// fdStore is systemd's. A nil one stores nothing.
type fdStore struct {
	socket int
	to     unix.Sockaddr
	failed bool // that was logged
}

func underSystemd() bool { return os.Getenv(notifyVar) != "" }

// openStore returns nil where there is no systemd.
func openStore() (*fdStore, error) {
	name := os.Getenv(notifyVar)
	if name == "" {
		return nil, nil
	}
	if name[0] != '/' && name[0] != '@' {
		return nil, fmt.Errorf("open systemd's socket: %s=%q is no unix socket", notifyVar, name)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open systemd's socket: %w", err)
	}
	limit := unix.NsecToTimeval(notifyTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open systemd's socket: %w", err)
	}
	return &fdStore{socket: fd, to: &unix.SockaddrUnix{Name: name}}, nil // x/sys knows what @ means
}

func (f *fdStore) close() error {
	if f == nil {
		return nil
	}
	return unix.Close(f.socket)
}

func (f *fdStore) notify(text string, fds ...int) error {
	if f == nil {
		return nil
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(f.socket, []byte(text), oob, f.to, unix.MSG_NOSIGNAL)
}

// complain once: what fails now fails for each listener.
func (f *fdStore) complain(err error, log *slog.Logger) {
	if f == nil {
		return
	}
	if err != nil && !f.failed {
		log.Error("systemd does not take the listeners: they will not survive this holder", "err", err)
	}
	f.failed = err != nil
}

func (f *fdStore) put(name string, v any, fds ...int) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode what is stored: %w", err)
	}
	fd, err := unix.MemfdCreate("whittle-holder", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a memfd: %w", err)
	}
	defer unix.Close(fd)
	if n, err := unix.Pwrite(fd, data, 0); err != nil || n != len(data) {
		return fmt.Errorf("write a memfd: %w", errors.Join(err, io.ErrShortWrite))
	}
	return f.notify("FDSTORE=1\nFDNAME="+name, append(fds, fd)...)
}

func (f *fdStore) save(l *listener, log *slog.Logger) {
	if f != nil {
		f.complain(f.put(strconv.FormatUint(l.ID, storeBase), l.Kept, l.FD), log)
	}
}

func (f *fdStore) forget(l *listener, log *slog.Logger) {
	if f != nil {
		f.complain(f.remove(strconv.FormatUint(l.ID, storeBase)), log)
	}
}

func (f *fdStore) remove(name string) error { return f.notify("FDSTOREREMOVE=1\nFDNAME=" + name) }

// barrier waits until systemd has read all that was sent: of a process that has gone it takes nothing.
func (f *fdStore) barrier() error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	err := f.notify("BARRIER=1", pipe[1])
	unix.Close(pipe[1])
	if err != nil {
		return fmt.Errorf("ask systemd for a barrier: %w", err)
	}
	fds := []unix.PollFd{{Fd: int32(pipe[0])}}
	if n, err := unix.Poll(fds, int(notifyTime.Milliseconds())); err != nil || n == 0 {
		return errors.Join(err, errors.New("systemd does not answer"))
	}
	return nil
}

// past is what a holder leaves its successor beside the listeners.
type past struct {
	Agents  int
	Unclean bool
	Refused []Refused
}

// storeCounts at the end.
func (s *server) storeCounts() {
	if s.telling != nil {
		s.refused.merge(s.telling)
	}
	p := past{Agents: s.agents, Unclean: s.unclean || s.agent != nil, Refused: s.refused.list()}
	// A memfd that is read back is limited.
	p.Refused = p.Refused[:min(len(p.Refused), 4096)]
	err := s.store.put(countsName, p)
	if err == nil {
		err = s.store.barrier()
	}
	s.store.complain(err, s.Log)
	s.Log.Info("the holder ends; systemd has the listeners", "listeners", len(s.table.byID))
}

// inherited are the descriptors that systemd hands back, by name.
type inherited map[string][]int

// takeInherited reads LISTEN_FDS and its like, and removes them: no child shall believe them.
func takeInherited() inherited {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n <= 0 || n > 2*maxKept+1 || pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	out := inherited{}
	list := strings.Split(names, ":")
	for i := range n {
		fd, name := firstPassed+i, ""
		if i < len(list) {
			name = list[i]
		}
		unix.CloseOnExec(fd)
		out[name] = append(out[name], fd)
	}
	return out
}

func (in inherited) close() {
	for _, fds := range in {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// readStored what put has written.
func readStored(fd int, v any) error {
	buf := make([]byte, maxStored)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		return fmt.Errorf("read what was stored: %w", err)
	}
	if err := json.Unmarshal(buf[:n], v); err != nil {
		return fmt.Errorf("read what was stored: %w", err)
	}
	return nil
}

// restore what a holder before this one has stored.
func (s *server) restore(in inherited) {
	for name, fds := range in {
		listenerFD := -1
		k := Kept{}
		var err error
		for _, fd := range fds {
			switch {
			case listenerFD < 0 && isListener(fd):
				listenerFD = fd
			case name == countsName:
				err = s.restoreCounts(fd)
				unix.Close(fd)
			default:
				err = readStored(fd, &k)
				unix.Close(fd)
			}
		}
		if err != nil {
			s.Log.Error("what systemd kept cannot be read", "name", name, "err", err)
		}
		if listenerFD < 0 || hasHungUp(listenerFD) || !s.restoreListener(name, k, listenerFD) {
			if listenerFD >= 0 {
				unix.Close(listenerFD)
			}
			s.store.complain(s.store.remove(name), s.Log)
		}
	}
	if len(in[countsName]) == 0 && len(s.table.byID) > 0 {
		s.unclean = true // the holder before this one did not end as it should: it could not say what it knew
	}
	if len(in) > 0 {
		s.Log.Info("the listeners are back from systemd", "listeners", len(s.table.byID))
	}
}

func (s *server) restoreCounts(fd int) error {
	var p past
	if err := readStored(fd, &p); err != nil {
		return err
	}
	s.agents, s.unclean = p.Agents, p.Unclean
	for _, r := range p.Refused {
		s.refused.add(counter{r.Container, r.Call}, tally{r.Count, r.Since, r.Last})
	}
	return nil
}

// restoreListener under its old id. What is already in the store stays there.
func (s *server) restoreListener(name string, k Kept, fd int) bool {
	id, err := strconv.ParseUint(name, storeBase, 64)
	if err != nil || id == 0 || id > 1<<56-1 {
		return false
	}
	k.ID, k.FD = id, fd
	l, added, err := s.table.add(k)
	if err == nil && added {
		err = s.watch(fd, s.listenerEvents(), aListener|l.ID)
	}
	if err != nil || !added {
		s.Log.Error("a listener that systemd kept is lost", "container", k.Container, "err", err)
		return false
	}
	return true
}
