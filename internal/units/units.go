// SPDX-License-Identifier: Apache-2.0

// Package units writes the systemd units of a service and its oracle, of which one runs at a time, and switches between the
// two. It knows no engine but Podman's command line, and decides nothing about when to switch.
package units

import (
	"fmt"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
)

// Suffix of the oracle's name.
const Suffix = "-oracle"

// header of each file; Ours finds it again.
const header = "Written by whittle oracle unit: what is changed here is lost when it is written again."

// Ours tells whether a file that is there was written by this package, so that nobody's own unit is overwritten.
func Ours(text string) bool { return strings.HasPrefix(text, "# "+header+"\n") }

// Unset fields of a Pair.
const (
	defaultLongest = 5 * time.Minute
	defaultStart   = 90 * time.Second
	defaultStop    = 10 * time.Second
	// What systemd waits beyond the container's own time to stop, for Podman to do so and to remove it.
	stopMargin = 30 * time.Second
)

// Pair is a service and its oracle: NAME.service and NAME-oracle.service.
type Pair struct {
	Name               string
	Production, Oracle Service
	// Longest time that the oracle runs; then production comes back, whoever asked for the oracle and whatever became of
	// them. Unset: five minutes.
	Longest time.Duration
}

// Service is one side of a Pair. Commands are lists of words, the first an absolute path. They are data: what systemd would
// read into them is escaped.
type Service struct {
	Before [][]string // each in turn, before Start; what fails is ignored
	Start  []string
	Stop   [][]string // ends it in good order; unset: SIGTERM
	After  [][]string // each in turn, when it has ended; what fails is ignored
	// Notify: it tells systemd when it is ready (sd_notify, from any of its processes). Else it is when it was executed.
	Notify      bool
	Restart     string            // of production: "on-failure" when unset, "always", "no"
	Environment map[string]string // of the commands
	StartWithin time.Duration     // unset: 90 s
	StopWithin  time.Duration     // until it is killed; unset: 40 s
	unit        bool              // the commands are to know the unit that they belong to
}

// File to be written.
type File struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Files of the pair: the two units.
func (p Pair) Files() ([]File, error) {
	if err := p.complete(); err != nil {
		return nil, err
	}
	var out []File
	for _, side := range []struct {
		name    string
		service Service
		write   func(*writer)
	}{
		{p.Name, p.Production, p.production},
		{p.Name + Suffix, p.Oracle, p.oracle},
	} {
		w := &writer{}
		w.comment(header)
		w.section("Unit")
		side.write(w)
		w.commands(side.service)
		if side.name == p.Name {
			p.install(w)
		}
		if w.err != nil {
			return nil, fmt.Errorf("write %s.service: %w", side.name, w.err)
		}
		out = append(out, File{side.name + ".service", w.String()})
	}
	return out, nil
}

// complete the pair with what is unset, or say what is wrong with it.
func (p *Pair) complete() error {
	if err := CheckName(p.Name); err != nil {
		return err
	}
	if p.Longest == 0 {
		p.Longest = defaultLongest
	}
	if p.Longest < time.Second {
		return fmt.Errorf("an oracle for %v: it needs a second at least", p.Longest)
	}
	for _, s := range []*Service{&p.Production, &p.Oracle} {
		if s.StartWithin <= 0 {
			s.StartWithin = defaultStart
		}
		if s.StopWithin <= 0 {
			s.StopWithin = defaultStop + stopMargin
		}
	}
	switch p.Production.Restart {
	case "":
		p.Production.Restart = "on-failure"
	case "on-failure", "always", "no":
	default:
		return fmt.Errorf("unknown way to restart: %q", p.Production.Restart)
	}
	return nil
}

// production is what its unit says of itself and the oracle.
func (p Pair) production(w *writer) {
	oracle := p.Name + Suffix + ".service"
	w.set("Description", p.Name+", in production")
	w.comment("Never both at once: each ends the other, and with an order between them systemd waits for that end.")
	w.set("Conflicts", oracle)
	w.set("After", "network-online.target "+oracle)
	w.set("Wants", "network-online.target")
	w.comment("Every time loop starts it again: they must not be able to lock it out.")
	w.set("StartLimitIntervalSec", "0")
	w.section("Service")
	w.comment("This does not apply when the oracle takes its place: systemd stops it then.")
	w.set("Restart", p.Production.Restart)
	w.set("RestartSec", "1s")
	p.timeouts(w, p.Production)
}

// oracle brings production back however it ends: OnFailure= covers what never ran (a dependency that is missing) and so
// has no ExecStopPost=, and ExecStopPost= what ended in good order.
func (p Pair) oracle(w *writer) {
	production := p.Name + ".service"
	w.set("Description", p.Name+", hardened: whittle's oracle")
	w.comment("The order that production's unit sets holds here, too: production has ended before this starts.")
	w.set("Conflicts", production)
	w.set("After", "network-online.target")
	w.set("Wants", "network-online.target")
	w.set("OnFailure", production)
	w.comment("A limit would be met when production has ended already, and then nothing would bring it back: a unit that had",
		"failed before and may not start again does not fail once more. Whittle limits how often it asks.")
	w.set("StartLimitIntervalSec", "0")
	w.section("Service")
	w.set("Restart", "no")
	w.comment("Should nobody ask for production's return.")
	w.set("RuntimeMaxSec", seconds(p.Longest))
	p.timeouts(w, p.Oracle)
	w.comment("First of all: what hangs or fails after it takes nothing away. Production's start waits for the end of this unit.",
		"When the host shuts down nothing is to come back. systemd would refuse it then; this does not even ask.")
	w.set("ExecStopPost", comeBack(production))
}

func (p Pair) timeouts(w *writer, s Service) {
	w.set("TimeoutStartSec", seconds(s.StartWithin))
	w.set("TimeoutStopSec", seconds(s.StopWithin))
}

func (p Pair) install(w *writer) {
	w.section("Install")
	w.set("WantedBy", "multi-user.target")
}

// comeBack starts production unless the host goes down, or into rescue mode. --no-block: systemd begins with it when this
// unit has ended, so that waiting for it here would wait forever. The name is checked: no shell reads anything into it.
func comeBack(production string) string {
	return `-/bin/sh -c 'case "$$(systemctl is-system-running)" in initializing|starting|running|degraded) exec systemctl --no-block start ` + production + `;; esac'`
}

// CheckName of a pair. systemd would accept more, but a name that goes to shells and paths is better plain.
func CheckName(name string) error {
	err := func() error {
		if name == "" || len(name) > 200 {
			return fmt.Errorf("a unit's name has 1 to 200 characters, and not %d", len(name))
		}
		for i, r := range name {
			letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
			if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) {
				return fmt.Errorf("%q is no name for a unit", name)
			}
		}
		if strings.HasSuffix(name, Suffix) {
			return fmt.Errorf("%q is the name of an oracle", name)
		}
		return nil
	}()
	if err != nil {
		return hint.Add(err, "a name is made of letters, digits, _, . and -, begins with a letter or digit, and does not end in "+Suffix)
	}
	return nil
}

// seconds as systemd reads them, rounded up.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%ds", (d+time.Second-1)/time.Second)
}
