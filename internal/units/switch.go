// SPDX-License-Identifier: Apache-2.0

package units

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/workload"
)

// ErrNoConflict means that systemd would let two units run at the same time.
var ErrNoConflict = errors.New("the two units do not exclude each other")

const (
	unitSuffix = ".service"
	maxAnswer  = 2 << 20 // an ExecStart= that package units writes has half a megabyte at most, and what it escapes
)

// Switch from one unit of a pair to the other: it returns when to runs, and from has ended before. When to does not start,
// systemd brings production back by what Files wrote; Switch waits for none of that. It refuses units that could run at the same
// time, because they are not a pair.
func Switch(ctx context.Context, from, to string) error {
	if err := Excludes(ctx, from, to); err != nil {
		return fmt.Errorf("switch to %s: %w", to, err)
	}
	if _, err := systemctl(ctx, "start", "--", to); err != nil {
		return fmt.Errorf("switch to %s: %w", to, hint.Add(err, "journalctl -u "+to+" says why"))
	}
	is, err := Show(ctx, to)
	if err != nil {
		return fmt.Errorf("switch to %s: %w", to, err)
	}
	if !is.Runs() {
		return hint.Add(fmt.Errorf("switch to %s: it started, and is %s now", to, is.State), "journalctl -u "+to+" says why")
	}
	return nil
}

// Status of a unit, as systemd has it.
type Status struct {
	Loaded  bool   // there is such a unit
	State   string // active, activating, deactivating, inactive, failed
	Pending bool   // a job of it is under way, or waits
	Result  string // of its last run: success, exit-code, signal, timeout …
	Exit    int    // of its last run's main process, 128 + n for signal n; a container's is the container's
	Command string // ExecStart=, as systemd prints it
	cgroup  string
}

// Runs: it was started, and nobody ends it.
func (s Status) Runs() bool { return s.State == "active" || s.State == "reloading" }

// Moving: whether it will run is not settled yet.
func (s Status) Moving() bool {
	return s.Pending || s.State == "activating" || s.State == "deactivating"
}

// Values of ExecMainCode, which are those of waitid's si_code.
const (
	codeKilled = "2"
	codeDumped = "3"
)

// Show what systemd has of a unit, which need not exist.
func Show(ctx context.Context, unit string) (Status, error) {
	is, err := show(ctx, unit, "LoadState", "ActiveState", "Job", "Result", "ExecMainCode", "ExecMainStatus", "ExecStart", "ControlGroup")
	if err != nil {
		return Status{}, fmt.Errorf("ask about %s: %w", workload.Printable(unit, 100), err)
	}
	s := Status{
		Loaded: is["LoadState"] == "loaded", State: workload.Printable(is["ActiveState"], 40), Pending: is["Job"] != "" && is["Job"] != "0",
		Result: workload.Printable(is["Result"], 40), Command: is["ExecStart"], cgroup: is["ControlGroup"],
	}
	if s.Exit, err = strconv.Atoi(cmp.Or(is["ExecMainStatus"], "0")); err != nil {
		return Status{}, fmt.Errorf("ask about %s: the status of its main process is %q", workload.Printable(unit, 100), is["ExecMainStatus"])
	}
	if code := is["ExecMainCode"]; code == codeKilled || code == codeDumped {
		s.Exit += 128
	}
	return s, nil
}

// Active tells whether a unit runs, by systemd's word for its state: active, activating, deactivating, inactive, failed.
func Active(ctx context.Context, unit string) (state string, err error) {
	is, err := Show(ctx, unit)
	return is.State, err
}

// Within reports whether a process is one of a unit, or its parent is: a container's first process is in a control group of
// its own, and the conmon that watches over it in the unit's.
func Within(ctx context.Context, unit string, pid int) (bool, error) {
	s, err := Show(ctx, unit)
	if err != nil || s.cgroup == "" {
		return false, err
	}
	for _, pid := range []int{pid, parentOf(pid)} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			continue // it has none, or has ended
		}
		for line := range strings.Lines(string(text)) {
			hierarchy, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			controllers, path, _ := strings.Cut(rest, ":")
			if (hierarchy == "0" || controllers == "name=systemd") && path == s.cgroup {
				return true, nil
			}
		}
	}
	return false, nil
}

// parentOf a process, 0 when it cannot be told.
func parentOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text[max(0, bytes.LastIndexByte(text, ')')):], []byte(" ")) // its name may have anything in it
	fields := bytes.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(fields[1])) // 0 is none
	return parent
}

// Excludes reports, by an error, that systemd would let two units run at the same time, or does not know the second. It asks
// systemd, not the files: these may have been changed, or not been read since.
func Excludes(ctx context.Context, from, to string) error {
	for _, unit := range []string{from, to} {
		if name, ok := strings.CutSuffix(unit, unitSuffix); !ok || CheckName(strings.TrimSuffix(name, Suffix)) != nil {
			return fmt.Errorf("%q is no unit of a service", workload.Printable(unit, 100))
		}
	}
	is, err := show(ctx, to, "Conflicts", "ConflictedBy", "Before", "After", "LoadState")
	if err != nil {
		return err
	}
	if is["LoadState"] != "loaded" {
		return hint.Add(fmt.Errorf("systemd says that it is %s", workload.Printable(is["LoadState"], 40)),
			"whittle oracle unit writes it; then: systemctl daemon-reload")
	}
	has := func(keys ...string) bool {
		for _, key := range keys {
			if slices.Contains(strings.Fields(is[key]), from) {
				return true
			}
		}
		return false
	}
	if !has("Conflicts", "ConflictedBy") || !has("Before", "After") {
		return hint.Add(fmt.Errorf("%w: %s and %s need Conflicts= and After=", ErrNoConflict, from, to),
			"whittle oracle unit writes such a pair")
	}
	return nil
}

func show(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
	out, err := systemctl(ctx, "show", "--property="+strings.Join(properties, ","), "--", unit)
	if err != nil {
		return nil, err
	}
	is := map[string]string{}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			is[key] = value
		}
	}
	return is, nil
}

// systemctl runs to its end. It asks nobody for a password.
func systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "systemctl", append([]string{"--no-ask-password", "--no-pager"}, args...)...)
	cmd.WaitDelay = time.Second
	var out, talk bytes.Buffer
	answer := &limited{w: &out}
	cmd.Stdout, cmd.Stderr = answer, &limited{w: &talk}
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", hint.Add(errors.New("there is no systemctl"), "units are for hosts that systemd runs")
	}
	if err != nil {
		return "", fmt.Errorf("systemctl %s: %w: %s", args[0], err, workload.Printable(strings.TrimSpace(talk.String()), 500))
	}
	if answer.size == maxAnswer { // what was cut off would be taken for what is not set
		return "", fmt.Errorf("systemctl %s answers with more than %d bytes", args[0], maxAnswer)
	}
	return out.String(), nil
}

// limited keeps the beginning of what is written to it.
type limited struct {
	w    io.Writer
	size int
}

func (l *limited) Write(p []byte) (int, error) {
	keep := p[:min(len(p), maxAnswer-l.size)]
	l.size += len(keep)
	if _, err := l.w.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}
