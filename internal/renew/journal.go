// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"golang.org/x/sys/unix"
)

// suffix of a journal's file.
const suffix = ".renewal"

// reserved room in a journal, so that a full disk is noticed before anything is changed. A renewal has about thirty lines
// of a hundred bytes, and a result.
const reserved = 128 << 10

// maxJournal bounds what is read of one.
const maxJournal = 4 << 20

// header is the first line of a journal: all that is needed to finish or to undo without asking anybody.
type header struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	PID     int       `json:"pid"` // of the process that makes the renewal
	Began   time.Time `json:"began"`
	Request Request   `json:"request"`
	Plan    Plan      `json:"plan"`
	Engine  string    `json:"engine"`
	Socket  string    `json:"socket,omitempty"` // of the engine: another one's containers are not these
	Old     string    `json:"old"`              // the predecessor's id
	New     string    `json:"new"`              // the successor's name while it is made, or its id if it existed
	NetNS   bool      `json:"network_kept,omitempty"`
}

const journalVersion = 1

// entry is every other line.
type entry struct {
	Step   Step      `json:"step,omitempty"`
	At     time.Time `json:"at,omitzero"`
	Made   string    `json:"made,omitempty"`   // the successor's id
	Result *Result   `json:"result,omitempty"` // it has ended
}

// journal of one renewal, which its process has locked.
type journal struct {
	file    *os.File
	size    int64
	head    header
	entries []entry
}

// begin a journal, unless a renewal of one of these containers is under way.
func begin(dir string, h header) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the journals: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := busy(dir, func(j *journal) bool { return j.concerns(h) }); err != nil {
		return nil, err
	}
	h.Version, h.ID, h.PID = journalVersion, h.Old[:min(len(h.Old), 12)]+"-"+strings.ToLower(rand.Text()[:6]), os.Getpid()
	file, err := os.OpenFile(filepath.Join(dir, h.ID+suffix), os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin a journal: %w", err)
	}
	j := &journal{file: file, head: h}
	if err := j.open(dir); err != nil {
		_ = os.Remove(file.Name()) // nothing has been made
		_ = file.Close()
		return nil, fmt.Errorf("begin a journal: %w", err)
	}
	return j, nil
}

// open a new journal: locked, with room, its header and its name on the disk.
func (j *journal) open(dir string) error {
	if err := flock(j.file); err != nil {
		return err
	}
	// Not every file system can reserve; there a full disk is noticed at the step that cannot be recorded.
	err := unix.Fallocate(int(j.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, reserved)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if err := j.write(j.head); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// add a line, which is on the disk when it returns.
func (j *journal) add(e entry) error {
	if err := j.write(e); err != nil {
		return fmt.Errorf("record it in the journal: %w", err)
	}
	j.entries = append(j.entries, e)
	return nil
}

func (j *journal) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	n, err := j.file.Write(line)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// Half a line would spoil the next one. If this fails too, the rest of the journal is not understood, and says so.
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.size += int64(n)
	return nil
}

// made is the successor's id, as far as it is known.
func (j *journal) made() (id string) {
	for _, e := range j.entries {
		if e.Step == StepMake || e.Made != "" { // one may be made again: see startElsewhere
			id = e.Made
		}
	}
	return id
}

// forward tells whether the successor was given the traffic, and not taken it again.
func (j *journal) forward() bool {
	forward := false
	for _, e := range j.entries {
		switch e.Step {
		case StepTurn:
			forward = true
		case StepBack:
			forward = false
		}
	}
	return forward
}

// has tells whether a step was begun.
func (j *journal) has(s Step) bool {
	for _, e := range j.entries {
		if e.Step == s {
			return true
		}
	}
	return false
}

// result of one that has ended; nil of others.
func (j *journal) result() *Result {
	for _, e := range j.entries {
		if e.Result != nil {
			return e.Result
		}
	}
	return nil
}

// close lets go of the lock; remove takes the file away first.
func (j *journal) close() error  { return j.file.Close() }
func (j *journal) remove() error { return errors.Join(os.Remove(j.file.Name()), j.file.Close()) }

// busy is an error if one of these journals is of a renewal that is under way, or was cut off.
func busy(dir string, concerned func(*journal) bool) error {
	names, err := journals(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		j, lively, err := read(name)
		switch {
		case err != nil:
			return hint.Add(err, "if it is not needed any more, remove "+name)
		case j == nil || !concerned(j):
		case lively:
			err := fmt.Errorf("%w: since %s, by process %d", ErrBusy, j.head.Began.Format(time.TimeOnly), j.head.PID)
			return hint.Add(err, "wait for it to end")
		case j.result() == nil:
			return hint.Add(ErrUnfinished, "finish or undo it first: sudo whittle renew --recover")
		}
	}
	return nil
}

// called tells whether a name, or the beginning of an id, may mean a container of the renewal.
func (j *journal) called(name string) bool {
	const short = 4 // of an id; fewer digits may mean anything
	if name == "" {
		return false
	}
	ids := []string{j.head.Old, j.head.New, j.made()}
	return name == j.head.Plan.Container ||
		slices.ContainsFunc(ids, func(id string) bool { return id == name || len(name) >= short && strings.HasPrefix(id, name) })
}

// concerns tells whether two renewals have a container in common.
func (j *journal) concerns(h header) bool {
	mine := map[string]bool{h.Old: true, h.New: true, "": false}
	return mine[j.head.Old] || mine[j.head.New] || mine[j.made()]
}

// journals of a directory, by their paths.
func journals(dir string) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(escape(dir), "*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("list the journals: %w", err)
	}
	return names, nil
}

// escape what Glob would understand.
func escape(dir string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(dir)
}

// read a journal without taking it; lively tells whether its process is there. Nil for one that is gone, or was never begun.
func read(name string) (j *journal, lively bool, err error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read a journal: %w", err)
	}
	defer file.Close()
	lively = errors.Is(flock(file), unix.EWOULDBLOCK)
	j, err = parse(file)
	return j, lively, err
}

// take over the journal of a process that is gone; nil if it is not, or there is nothing in it.
func take(name string) (*journal, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("take over a journal: %w", err)
	}
	var st unix.Stat_t
	err = flock(file)
	if err == nil {
		err = unix.Fstat(int(file.Fd()), &st)
	}
	if err != nil || st.Nlink == 0 { // somebody has it, or had it and is done
		file.Close()
		if err == nil || errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("take over a journal: %w", err)
	}
	j, err := parse(file)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("take over the journal %s: %w", name, err)
	}
	if j == nil { // its process was killed before anything was made
		return nil, errors.Join(os.Remove(name), file.Close())
	}
	if err := file.Truncate(j.size); err != nil {
		file.Close()
		return nil, fmt.Errorf("take over the journal %s: %w", name, err)
	}
	return j, nil
}

// parse a journal. A last line that is torn was not on the disk when its step would have begun: it does not count. Nil when
// there is not even a header.
func parse(file *os.File) (*journal, error) {
	text, err := io.ReadAll(io.LimitReader(file, maxJournal))
	if err != nil {
		return nil, err
	}
	j, err := parseLines(text)
	if j != nil {
		j.file = file
	}
	return j, err
}

func parseLines(text []byte) (*journal, error) {
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	lines := bufio.NewScanner(bytes.NewReader(whole))
	lines.Buffer(nil, maxJournal)
	if !lines.Scan() {
		return nil, nil
	}
	j := &journal{size: int64(len(whole))}
	if err := json.Unmarshal(lines.Bytes(), &j.head); err != nil {
		return nil, fmt.Errorf("understand the header: %w", err)
	}
	if j.head.Version != journalVersion || j.head.Old == "" || j.head.New == "" || j.head.Plan.Strategy == "" {
		return nil, fmt.Errorf("it is not one of this version (%d)", j.head.Version)
	}
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("understand line %d: %w", len(j.entries)+2, err)
		}
		j.entries = append(j.entries, e)
	}
	return j, lines.Err()
}

// lockDir waits for whoever looks through the journals, which takes no time.
func lockDir(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the journals: %w", err)
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock the journals: %w", err)
	}
	return func() { file.Close() }, nil
}

// flock without waiting.
func flock(file *os.File) error { return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
