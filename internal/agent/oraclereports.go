// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/oracle"
)

// What of a directory of reports is looked at: whoever is inside may write there.
const (
	maxReportFiles = 4096 // more than any hardening writes
	maxReports     = 16   // that are read at once
)

// reports of one oracle: what was seen of its directory.
type reports struct {
	dir  string
	seen map[string]reportFile
	full bool // and that was told
}

type reportFile struct {
	size int64
	at   time.Time
	read bool // in this size
}

// look for reports that are new, in the order of their names. A file that still grows is left until it does not, unless the
// oracle has ended. Valgrind has a file for each process from its start: one without a fault is read again when it has grown.
func (r *reports) look(dir string, ended bool) (found []oracle.Report, err error) {
	if r.dir != dir {
		*r = reports{dir: dir, seen: map[string]reportFile{}}
	}
	root, err := unix.Open(filepath.Join(dir, "reports"), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // it was never made
	}
	if err != nil {
		return nil, fmt.Errorf("open the reports: %w", err)
	}
	d := os.NewFile(uintptr(root), "reports")
	defer d.Close()
	names, err := d.Readdirnames(maxReportFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list the reports: %w", err)
	}
	if len(names) > maxReportFiles {
		if r.full {
			return nil, nil
		}
		r.full = true
		return []oracle.Report{{Kind: "unknown", Summary: "somebody inside fills the directory that reports are written to"}}, nil
	}
	slices.Sort(names)
	for _, name := range names {
		if len(found) == maxReports {
			break
		}
		report, err := r.one(root, name, ended)
		switch {
		case err == nil:
			found = append(found, report)
		case !errors.Is(err, oracle.ErrNothing) && !errors.Is(err, errReportWaits):
			return found, fmt.Errorf("read a report: %w", err)
		}
	}
	return found, nil
}

var errReportWaits = errors.New("it is not to be read now")

// one file of the directory. Whatever is not a plain file is no report: a pipe would wait, a link lead elsewhere.
func (r *reports) one(root int, name string, ended bool) (report oracle.Report, err error) {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return report, errReportWaits // a link, a socket, or gone
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return report, errReportWaits
	}
	now, was := reportFile{size: info.Size(), at: info.ModTime()}, r.seen[name]
	grows := now.size != was.size || !now.at.Equal(was.at)
	if grows && !ended || !grows && was.read {
		if grows && len(r.seen) < 4*maxReportFiles { // files come and go
			r.seen[name] = now
		}
		return report, errReportWaits
	}
	now.read = true
	if len(r.seen) < 4*maxReportFiles {
		r.seen[name] = now
	}
	return oracle.ReadReport(name, io.LimitReader(f, oracle.MaxReport))
}

// logged is a report in what a container wrote.
func logged(logs string) (oracle.Report, error) {
	return oracle.ReadReport("log", strings.NewReader(logs[max(0, len(logs)-oracle.MaxReport):]))
}
