// SPDX-License-Identifier: Apache-2.0

package units

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/workload"
)

// ErrNoConflict means that systemd would let two units run at the same time.
var ErrNoConflict = errors.New("the two units do not exclude each other")

const (
	unitSuffix = ".service"
	maxAnswer  = 64 << 10
)

// Switch from one unit of a pair to the other: it returns when to runs, and from has ended before. When to does not start,
// systemd brings production back by what Files wrote; Switch waits for none of that. It refuses units that could run at the same
// time, because they are not a pair.
func Switch(ctx context.Context, from, to string) error {
	for _, unit := range []string{from, to} {
		if name, ok := strings.CutSuffix(unit, unitSuffix); !ok || CheckName(strings.TrimSuffix(name, Suffix)) != nil {
			return fmt.Errorf("switch units: %q is no unit of a service", workload.Printable(unit, 100))
		}
	}
	if err := excludes(ctx, from, to); err != nil {
		return fmt.Errorf("switch to %s: %w", to, err)
	}
	if _, err := systemctl(ctx, "start", "--", to); err != nil {
		return fmt.Errorf("switch to %s: %w", to, hint.Add(err, "journalctl -u "+to+" says why"))
	}
	is, err := show(ctx, to, "ActiveState")
	if err != nil {
		return fmt.Errorf("switch to %s: %w", to, err)
	}
	if state := is["ActiveState"]; state != "active" {
		return hint.Add(fmt.Errorf("switch to %s: it started, and is %s now", to, workload.Printable(state, 40)), "journalctl -u "+to+" says why")
	}
	return nil
}

// Active tells whether a unit runs, by systemd's word for its state: active, activating, deactivating, inactive, failed.
func Active(ctx context.Context, unit string) (state string, err error) {
	is, err := show(ctx, unit, "ActiveState")
	if err != nil {
		return "", fmt.Errorf("ask about %s: %w", workload.Printable(unit, 100), err)
	}
	return workload.Printable(is["ActiveState"], 40), nil
}

// excludes asks systemd, not the files: these may have been changed, or not been read since.
func excludes(ctx context.Context, from, to string) error {
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
	cmd.Stdout, cmd.Stderr = &limited{w: &out}, &limited{w: &talk}
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", hint.Add(errors.New("there is no systemctl"), "units are for hosts that systemd runs")
	}
	if err != nil {
		return "", fmt.Errorf("systemctl %s: %w: %s", args[0], err, workload.Printable(strings.TrimSpace(talk.String()), 500))
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
