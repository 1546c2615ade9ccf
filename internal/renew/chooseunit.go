// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/units"
)

// What a choice knows of containers that a systemd unit manages.

// unitRefusal is what no strategy can help against.
func unitRefusal(b engine.Blueprint, f Facts, r Request) (why, hint string) {
	others := r.Changes
	others.Seccomp = ""
	switch u := f.Unit; {
	case u == nil:
		return fmt.Sprintf("the unit %s manages it, and would start it again when it is stopped; it cannot be driven: %s", b.SystemdUnit, f.NoUnit),
			"change the profile in the unit, then: systemctl restart " + b.SystemdUnit
	case strings.HasSuffix(u.Name, units.Suffix+".service"):
		return "it is an oracle, whose end brings production back", "renew production, when it is back"
	case !u.Steady():
		return fmt.Sprintf("systemd is at its unit: %s is %s", u.Name, u.State), "wait until it is active: systemctl status " + u.Name
	case !strings.Contains(u.Command, b.Name) && !strings.Contains(u.Command, b.ID):
		return fmt.Sprintf("%s does not say how it is called, so that its successor could not be found", u.Name),
			"give it a name in the unit: --name, or ContainerName= of a quadlet"
	case r.Successor != "" || r.Retire == RetireKeep:
		return fmt.Sprintf("its successor is what %s makes, which keeps no predecessor", u.Name), "leave out --successor and --keep"
	case r.Drain != 0:
		return fmt.Sprintf("%s says for how long it may finish its requests", u.Name), "leave out --drain, or set --stop-timeout and TimeoutStopSec= in the unit"
	case !reflect.ValueOf(others).IsZero():
		return fmt.Sprintf("%s says what it is made of", u.Name), "change the unit, then: systemctl daemon-reload && systemctl restart " + u.Name
	}
	return profileRefusal(b, r)
}

// profileRefusal says why the new profile would not be in force in what the unit starts.
func profileRefusal(b engine.Blueprint, r Request) (why, hint string) {
	name := ProfileDir + "/" + b.Name + ".json"
	switch file := r.Changes.Seccomp; {
	case file == "":
		return "", ""
	case file == engine.SeccompUnconfined:
		return fmt.Sprintf("%s says which profile it has", b.SystemdUnit), "systemctl edit --full " + b.SystemdUnit
	case !b.AutoRemove:
		return fmt.Sprintf("%s starts the same container again, whose profile was read when it was made", b.SystemdUnit),
			"have the unit make it anew: a quadlet, or podman generate systemd --new"
	case file == b.Seccomp:
		return "the new profile is the unit's own file, so that there would be no way back", "write the new one to another file: it is put there by the renewal"
	case filepath.Dir(b.Seccomp) != ProfileDir:
		return fmt.Sprintf("%s names no profile in %s, which a renewal might replace, but %s", b.SystemdUnit, ProfileDir, b.Seccomp),
			fmt.Sprintf("once: put one there, name it in the unit (--security-opt seccomp=%s; SeccompProfile=%s of a quadlet), then: systemctl daemon-reload && systemctl restart %s",
				name, name, b.SystemdUnit)
	}
	return "", ""
}

// unit fills in what a plan says of one.
func (p *Plan) unit(u *units.Unit, b engine.Blueprint, r Request) {
	p.Unit, p.Writers = u.Name, WritersOne
	p.RestartWithin = u.Stop + min(u.Start, p.Patience) + restartMargin
	for _, s := range u.Sockets {
		p.Sockets = append(p.Sockets, s.Name)
	}
	if r.Changes.Seccomp == "" {
		p.Reasons = append(p.Reasons, fmt.Sprintf("%s starts it, as it says, and if its engine calls whittle under the policy of now", u.Name))
		return
	}
	p.Profile = b.Seccomp
	p.Reasons = append(p.Reasons, fmt.Sprintf("%s starts it under %s, which gets the new profile, and the present one again if it has to go back", u.Name, p.Profile))
}

// againstSocket of systemd's, in which connections wait.
func (c choice) againstSocket() string {
	u := c.f.Unit
	switch {
	case u == nil:
		return "no unit of systemd manages it"
	case len(u.Sockets) == 0:
		return "no socket unit belongs to " + u.Name
	case !c.f.Inherited:
		return "it was not given the sockets of " + u.Sockets[0].Name + " (LISTEN_FDS)"
	}
	for _, s := range u.Sockets {
		if s.Lost != "" {
			return s.Name + ": " + s.Lost
		}
	}
	return ""
}

// againstGiven sockets, beside which nothing of ours can stand: systemd has them as well.
func (c choice) againstGiven() string {
	if c.f.Unit != nil && c.f.Inherited {
		return "its listening sockets are systemd's"
	}
	return ""
}

func (c choice) socketReason() string {
	var names []string
	for _, s := range c.f.Unit.Sockets {
		names = append(names, s.Name)
	}
	return fmt.Sprintf("its sockets are systemd's (%s): new connections wait in them while %s is restarted", strings.Join(names, ", "), c.f.Unit.Name)
}

func (c choice) unitWarnings(s Strategy) (all []string) {
	u := c.f.Unit
	if !c.b.NetworkKept && c.b.Network == engine.NetworkPrivate && s != Socket {
		all = append(all, "the engine may give the successor another address, unless the unit says which; published ports stay the same")
	}
	if len(c.f.Own) > 0 {
		all = append(all, fmt.Sprintf("who connects to %v is refused meanwhile: no socket unit has it", c.f.Own))
	}
	if u.Stale {
		all = append(all, fmt.Sprintf("the file of %s was changed, and systemd has not read it yet: systemctl daemon-reload", u.Name))
	}
	if with := slices.DeleteFunc(slices.Clone(u.With), func(name string) bool { return strings.HasSuffix(name, ".target") }); len(with) > 0 {
		all = append(all, "systemd restarts with it what depends on it: "+strings.Join(with, ", "))
	}
	return all
}

// unitSteps of a strategy, before those that have nothing to do are left out.
func unitSteps(s Strategy) []Step {
	switch s {
	case Socket, Restart:
		return []Step{StepProfile, StepRestart, StepListen, StepReady, StepTurn}
	case Hold:
		return []Step{StepProfile, StepForm, StepHold, StepRestart, StepListen, StepReady, StepTurn, StepRelease}
	case Gate:
		return []Step{StepProfile, StepHold, StepRestart, StepListen, StepReady, StepTurn}
	}
	return nil
}

// given are the addresses and paths of a unit's sockets.
func given(u *units.Unit) (all []string) {
	for _, s := range u.Sockets {
		all = append(all, s.Listen...)
	}
	return all
}

// share the listening sockets between those that systemd has, too, and the container's own.
func (f *Facts) share(all []netip.AddrPort) {
	from := given(f.Unit)
	slices.SortFunc(all, netip.AddrPort.Compare)
	f.Listeners, f.Own = nil, nil
	for _, l := range slices.Compact(all) {
		if slices.Contains(from, l.String()) {
			f.Listeners = append(f.Listeners, l)
		} else {
			f.Own = append(f.Own, l)
		}
	}
}
