// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/workload"
)

// JobCommand is the hidden command that makes a Job.
const JobCommand = "renew-job"

// Job is a renewal that a process of its own makes, so that the death of the one who wants it does not end it.
type Job struct {
	Request Request    `json:"request"`
	Engine  string     `json:"engine"` // "podman", "docker"
	Socket  string     `json:"socket,omitempty"`
	Dir     string     `json:"dir"` // Runner.Dir
	Tell    func(Done) `json:"-"`   // as Runner.Tell; may be nil
}

// report is a line of what a job's process writes: each step, and at last the result or an error.
type report struct {
	Done   *Done   `json:"done,omitempty"`
	Result *Result `json:"result,omitempty"`
	Error  string  `json:"error,omitempty"`
	Hint   string  `json:"hint,omitempty"`
	Cause  string  `json:"cause,omitempty"` // which of our errors it is
}

// maxReport bounds a line, and maxTalk what is kept of standard error.
const maxReport, maxTalk = 1 << 20, 4 << 10

// causes that a caller may want to tell apart, by the word that stands for them between processes.
var causes = map[string]error{"busy": ErrBusy, "unfinished": ErrUnfinished, "refused": ErrRefused}

// RunJob has a new session's process, `exe renew-job`, make the renewal, and waits for it. When ctx is done it returns; the
// renewal goes on to its end, and its result is what the next Recover returns.
func RunJob(ctx context.Context, exe string, j Job) (Result, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return Result{}, fmt.Errorf("renew in a process of its own: %w", err)
	}
	var said talk
	cmd := exec.Command(exe, JobCommand)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return Result{}, fmt.Errorf("renew in a process of its own: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return Result{}, fmt.Errorf("renew in a process of its own: %w", err)
	}
	type ending struct {
		last report
		err  error
	}
	ended := make(chan ending, 1)
	go func() {
		last, err := readReports(out, j.Tell)
		// What it goes on to write is not read, but must not stop it; its status says nothing that the reports do not.
		_, _ = io.Copy(io.Discard, out)
		if failed := cmd.Wait(); err == nil && last.Result == nil && last.Error == "" {
			err = fmt.Errorf("it ended without a result: %w%s", failed, &said)
		}
		ended <- ending{last, err}
	}()
	select {
	case <-ctx.Done():
		return Result{}, fmt.Errorf("wait for the renewal of %s, which goes on: %w", j.Request.Container, ctx.Err())
	case e := <-ended:
		return outcome(j, e.last, e.err)
	}
}

// outcome of a job whose process has ended. What we were told of need not be told by Recover.
func outcome(j Job, last report, err error) (Result, error) {
	switch {
	case err != nil:
		return Result{}, fmt.Errorf("renew in a process of its own: %w", err)
	case last.Result != nil:
		return *last.Result, Forget(j.Dir, last.Result.ID)
	}
	err = errors.New(last.Error)
	if cause := causes[last.Cause]; cause != nil {
		err = &told{last.Error, cause}
	}
	if last.Hint != "" {
		err = hint.Add(err, last.Hint)
	}
	return Result{}, err
}

// told is an error of another process.
type told struct {
	text  string
	cause error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.cause }

func readReports(out io.Reader, tell func(Done)) (last report, err error) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxReport)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return last, fmt.Errorf("understand what it says: %w", err)
		}
		if r.Done != nil {
			if tell != nil {
				tell(*r.Done)
			}
			continue
		}
		last = r
	}
	return last, lines.Err()
}

// ServeJob is the other side: it makes the renewal that is read from in and writes what becomes of it to out. That nobody
// listens any more is no reason to stop.
func ServeJob(ctx context.Context, in io.Reader, out io.Writer, runner func(Job) (*Runner, error)) error {
	var j Job
	dec := json.NewDecoder(io.LimitReader(in, maxReport))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return fmt.Errorf("understand what is to be renewed: %w", err)
	}
	var last report
	r, err := runner(j)
	if err == nil {
		enc := json.NewEncoder(out)
		r.Keep, r.Tell = true, func(d Done) { _ = enc.Encode(report{Done: &d}) } // see above
		var result Result
		if result, err = r.Run(ctx, j.Request); result.Outcome != "" {
			last.Result = &result
		}
	}
	if err != nil && last.Result != nil {
		last.Result.Warnings = append(last.Result.Warnings, err.Error())
	} else if err != nil {
		last.Error, last.Hint = err.Error(), hint.Of(err)
		for word, cause := range causes {
			if errors.Is(err, cause) {
				last.Cause = word
			}
		}
	}
	return json.NewEncoder(out).Encode(last)
}

// talk keeps the beginning of what is written to it, for an error message.
type talk struct {
	mu   sync.Mutex
	text []byte
}

func (t *talk) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[:min(len(p), maxTalk-len(t.text))]...)
	return len(p), nil
}

func (t *talk) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return ""
	}
	return ": " + workload.Printable(strings.TrimSpace(string(t.text)), maxTalk)
}
