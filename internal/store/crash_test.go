// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// The test binary is its own child: with jobVariable set, TestMain runs the job instead of the tests.
const (
	jobVariable = "WHITTLE_STORE_TEST_JOB"
	dirVariable = "WHITTLE_STORE_TEST_DIR"
)

func child(t *testing.T, job, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), jobVariable+"="+job, dirVariable+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}

func shell(t *testing.T, command string) (string, error) {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	return string(out), err
}

func runJob(job, dir string) int {
	var err error
	switch job {
	case "write":
		err = writeForever(dir)
	case "supervise":
		err = superviseForever(dir)
	case "loop":
		err = loopForever(dir)
	case "fill":
		err = fillDisk(dir)
	default:
		err = fmt.Errorf("no job %q", job)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// writeForever reports each commit on stdout after it was made.
func writeForever(dir string) error {
	s, err := Open(dir, clock())
	if err != nil {
		return err
	}
	for i := uint32(0); ; i++ {
		revision, err := s.PutPolicy(ctx, testPolicy("redis", i%500, i%7+500), "learned")
		if err != nil {
			return err
		}
		id, err := s.AddEvent(ctx, Event{Kind: "k", Text: fmt.Sprint(revision)})
		if err != nil {
			return err
		}
		fmt.Println(revision, id)
	}
}

// kill -9 at different moments, on the same database: everything that was reported is there, and it opens without a
// complaint.
func TestKilledWhileWriting(t *testing.T) {
	dir := stateDir(t)
	for round := range 6 {
		cmd := child(t, "write", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var revision int
		var event int64
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscan(lines.Text(), &revision, &event); err != nil {
				t.Fatalf("child said %q: %v", lines.Text(), err)
			}
			// Reading goes on to the end of the pipe: what was reported until the kill counts too.
			if n == 1+round*13 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("child: %v, want killed", err)
		}
		s := open(t, dir)
		if _, rev, err := s.Policy(ctx, "redis"); err != nil || rev.Number < revision {
			t.Errorf("round %d: revision %d, %v, want at least %d, which was reported", round, rev.Number, err, revision)
		}
		events, err := s.Events(ctx, EventFilter{After: event - 1, Oldest: true})
		if err != nil || len(events) == 0 || events[0].ID != event || events[0].Text != fmt.Sprint(revision) {
			t.Errorf("round %d: event %d was reported and is not there: %v, %v", round, event, events, err)
		}
		closeStore(t, s)
	}
}

// A full disk, as a small tmpfs that only the child sees.
func TestDiskFull(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	cmd := child(t, "fill", dir)
	cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "all there") {
		t.Errorf("child said %q", out)
	}
}

func fillDisk(dir string) error {
	// The runtime made this mount namespace private; it ends with this process.
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	state := filepath.Join(dir, "state")
	s, err := Open(state, clock())
	if err != nil {
		return err
	}
	var stored int64
	text := strings.Repeat("x", maxText)
	for {
		id, err := s.AddEvent(ctx, Event{Kind: "k", Text: text})
		if errors.Is(err, ErrFull) {
			if hint.Of(err) == "" {
				return fmt.Errorf("no hint: %w", err)
			}
			fmt.Println("refused after", stored, "events:", err)
			break
		}
		if err != nil {
			return fmt.Errorf("event %d: %w, want ErrFull", stored+1, err)
		}
		stored = id
	}
	if stored == 0 {
		return errors.New("nothing fitted")
	}
	if err := stillThere(s, stored); err != nil {
		return fmt.Errorf("with the disk full: %w", err)
	}
	// Closing may fail to move the WAL into the database; the WAL stays then.
	if err := s.Close(); err != nil {
		fmt.Println("close:", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=8m"); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	if s, err = Open(state, clock()); err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	if err := stillThere(s, stored); err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	if _, err := s.AddEvent(ctx, Event{Kind: "k"}); err != nil {
		return fmt.Errorf("with space again: %w", err)
	}
	fmt.Println("all there")
	return s.Close()
}

func stillThere(s *Store, stored int64) error {
	events, err := s.Events(ctx, EventFilter{Limit: 10_000, Oldest: true})
	if err != nil {
		return err
	}
	if int64(len(events)) != stored {
		return fmt.Errorf("%d events, %d were reported", len(events), stored)
	}
	return nil
}

// The same without root: the database itself may not grow.
func TestDatabaseFull(t *testing.T) {
	s := open(t, stateDir(t))
	put(t, s, testPolicy("redis", 1), "learned")
	if _, err := s.write.Exec("PRAGMA max_page_count = 1"); err != nil { // at least what there is
		t.Fatal(err)
	}
	stored := 1
	_, err := s.PutPolicy(ctx, testPolicy("image", 1), "learned")
	for ; err == nil && stored < 1000; _, err = s.PutPolicy(ctx, testPolicy(fmt.Sprint("image", stored), 1), "learned") {
		stored++
	}
	if !errors.Is(err, ErrFull) || hint.Of(err) == "" {
		t.Fatalf("after %d policies: %v, want ErrFull with a hint", stored, err)
	}
	entries, err := s.Policies(ctx)
	if err != nil || len(entries) != stored {
		t.Errorf("%d policies, %v, want the %d that were reported as stored", len(entries), err, stored)
	}
}
