// SPDX-License-Identifier: Apache-2.0

package units

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Unit is what systemd says of a service that it may have to restart.
type Unit struct {
	Name    string
	MainPID int    // 0: it has none
	Command string // of its start, as systemd shows it
	State   string // active, activating, deactivating, inactive, failed
	Queued  bool   // systemd is about to change that, or at it
	Stale   bool   // its file was changed since systemd read it
	// Stop and Start are for how long it may take to.
	Stop, Start time.Duration
	Sockets     []Socket // that start it
	With        []string // services and others that systemd restarts with it
}

// Socket is a unit whose sockets start a service, and are given to it.
type Socket struct {
	Name   string
	Listen []string // addresses and paths, as systemd shows them
	// Lost says why what waits in them is not kept while the service is restarted; "": it is.
	Lost string
}

const (
	// patient is for how long a unit without a limit of its own is waited for, and longest for how long one with any.
	patient, longest = 5 * time.Minute, time.Hour
	// lookTime bounds a question to systemd, which answers in milliseconds.
	lookTime = 15 * time.Second
)

// Look at a service. Of one that systemd does not know, it is an error.
func Look(ctx context.Context, name string) (Unit, error) {
	doing := "ask systemd about " + workload.Printable(name, 100)
	if !plainUnit(name) {
		return Unit{}, fmt.Errorf("%s: it is no name of a service", doing)
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	is, err := show(ctx, name, append([]string{"LoadState", "ActiveState", "Job", "MainPID", "NeedDaemonReload", "TimeoutStartUSec",
		"TimeoutStopUSec", "TriggeredBy"}, restartedWith...)...)
	if err != nil {
		return Unit{}, fmt.Errorf("%s: %w", doing, err)
	}
	if state := is["LoadState"]; state != "loaded" {
		return Unit{}, hint.Add(fmt.Errorf("%s: it is %s", doing, workload.Printable(state, 40)),
			"only units of the system's own systemd are driven, and not a user's")
	}
	u := Unit{
		Name: name, State: workload.Printable(is["ActiveState"], 40), Queued: is["Job"] != "", Stale: is["NeedDaemonReload"] == "yes",
		Stop: atMost(is["TimeoutStopUSec"]), Start: atMost(is["TimeoutStartUSec"]),
	}
	if u.MainPID, err = strconv.Atoi(is["MainPID"]); err != nil || u.MainPID < 0 {
		return Unit{}, fmt.Errorf("%s: its main process is %q", doing, is["MainPID"])
	}
	if u.Command, err = systemctl(ctx, "show", "--property=ExecStart", "--value", "--", name); err != nil {
		return Unit{}, fmt.Errorf("%s: %w", doing, err)
	}
	var with []string
	for _, key := range restartedWith {
		with = append(with, strings.Fields(is[key])...)
	}
	slices.Sort(with)
	u.With = slices.Compact(with)
	for socket := range strings.FieldsSeq(is["TriggeredBy"]) {
		if !strings.HasSuffix(socket, ".socket") { // a timer or a path gives it nothing
			continue
		}
		s, err := lookSocket(ctx, socket)
		if err != nil {
			return Unit{}, fmt.Errorf("%s: %w", doing, err)
		}
		if s.Lost == "" && slices.Contains(u.With, socket) {
			s.Lost = "it is restarted with the service"
		}
		u.Sockets = append(u.Sockets, s)
	}
	return u, nil
}

// restartedWith are the properties with the units that a restart goes on to (systemd's UNIT_ATOM_PROPAGATE_RESTART, _STOP).
var restartedWith = []string{"RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo"}

func lookSocket(ctx context.Context, name string) (Socket, error) {
	if !plainUnit(strings.TrimSuffix(name, ".socket") + unitSuffix) {
		return Socket{}, fmt.Errorf("%q is no name of a socket unit", workload.Printable(name, 100))
	}
	is, err := show(ctx, name, "ActiveState", "Accept", "FlushPending")
	if err != nil {
		return Socket{}, err
	}
	s := Socket{Name: name}
	switch {
	case is["ActiveState"] != "active":
		s.Lost = "it is " + workload.Printable(is["ActiveState"], 40)
	case is["Accept"] != "no":
		s.Lost = "it starts a service for each connection (Accept=yes)"
	case is["FlushPending"] == "yes":
		s.Lost = "it drops what waits when the service ends (FlushPending=yes)"
	}
	text, err := systemctl(ctx, "show", "--property=Listen", "--", name)
	if err != nil {
		return Socket{}, err
	}
	for line := range strings.Lines(text) { // one for each: "Listen=[::]:80 (Stream)"
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "Listen="); ok {
			at, _, _ := strings.Cut(value, " (")
			s.Listen = append(s.Listen, at)
		}
	}
	return s, nil
}

// Restart a service: one job of systemd's stops and starts it, and nothing can start it in between, neither what waits in a
// socket nor Restart=. It returns when systemd takes the service for started, and after within in any case; systemd may
// be at it still then. Its limit of starts does not count this one.
func Restart(ctx context.Context, name string, within time.Duration) error {
	if !plainUnit(name) {
		return fmt.Errorf("restart %q: it is no name of a service", workload.Printable(name, 100))
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	// It resets the counter of starts, too. That nothing of it is loaded any more the restart says itself.
	_, _ = systemctl(ctx, "reset-failed", "--", name)
	if _, err := systemctl(ctx, "restart", "--", name); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("systemd is not done with it after %v: %w", within, err)
		}
		return hint.Add(fmt.Errorf("restart %s: %w", name, err), "journalctl -u "+name+" says why")
	}
	return nil
}

// Open socket units again that failed with their service. Nil for those that are open.
func Open(ctx context.Context, sockets ...string) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var failed error
	for _, name := range sockets {
		state, err := Active(ctx, name)
		if err == nil && state != "active" {
			_, _ = systemctl(ctx, "reset-failed", "--", name)
			_, err = systemctl(ctx, "start", "--", name)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("open %s: %w", workload.Printable(name, 100), err))
		}
	}
	return failed
}

// plainUnit tells whether a name means one service and no other: a container's label may say anything, and systemctl
// takes patterns.
func plainUnit(name string) bool {
	stem, ok := strings.CutSuffix(name, unitSuffix)
	if !ok || stem == "" || len(name) > 255 || stem[0] == '-' || stem[0] == '.' {
		return false
	}
	return strings.IndexFunc(stem, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune(`:_.\-@`, r)
	}) < 0
}

// Steady tells whether it runs and goes on doing so.
func (u Unit) Steady() bool { return u.State == "active" && !u.Queued }

// atMost is a limit as systemd shows it, "1min 30s", or patient where there is none.
func atMost(text string) time.Duration {
	d, ok := span(text)
	if !ok || d <= 0 {
		return patient
	}
	return min(d, longest)
}

// scale of the units that systemd shows a time span in (format_timespan).
var scale = map[string]time.Duration{
	"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

// span that systemd shows; not ok for infinity, and for what is longer than weeks.
func span(text string) (d time.Duration, ok bool) {
	words := strings.Fields(text)
	for _, word := range words {
		end := strings.IndexFunc(word, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if end <= 0 {
			return 0, false
		}
		n, err := strconv.ParseFloat(word[:end], 64)
		unit, known := scale[word[end:]]
		if err != nil || !known || n > 1e6 {
			return 0, false
		}
		d += time.Duration(n * float64(unit))
		if d < 0 || d > 1e4*24*time.Hour {
			return 0, false
		}
	}
	return d, len(words) > 0
}
