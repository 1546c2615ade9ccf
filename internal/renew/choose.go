// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/traffic"
	"github.com/whittle-sec/whittle/internal/units"
)

// Facts are what a choice needs to know beyond the blueprint.
type Facts struct {
	Listeners []netip.AddrPort // TCP
	Unmovable []traffic.Unmovable
	Inherited bool   // the listening sockets came from a service manager (LISTEN_FDS)
	NoTraffic string // why listening sockets cannot be moved here; "": they can
	NoGate    string // why connections cannot be kept waiting at the host
	Gate      string // how they would be
	// Unit of systemd's that manages it; nil: none, or none that can be driven, and NoUnit says why. Where its sockets were
	// given to the container, Listeners are those, and Own are what the container listens on besides.
	Unit   *units.Unit
	NoUnit string
	Own    []netip.AddrPort
	Sharer string // a process of another container in the network of its own, which would be left without one
	Inits  bool   // the engine can do everything but the exec beforehand
	// Successor is what an existing one is made of; nil where one is to be made.
	Successor *engine.Blueprint
}

// defaultDrain is for engines that do not tell a container's stop timeout; both take ten seconds.
const defaultDrain = 10 * time.Second

// Choose how a container is renewed. It decides by what it is given, and asks nobody.
func Choose(b engine.Blueprint, f Facts, r Request) Plan {
	p := Plan{
		Container: b.Name, ID: b.ID, Ports: f.Listeners, Ready: readyText(b, f, r.Ready),
		Drain: cmp.Or(r.Drain, b.StopTimeout, defaultDrain), Patience: cmp.Or(r.Patience, DefaultPatience),
	}
	p.Writers = p.writers(b, r)
	if why, hint := refusal(b, f, r); why != "" {
		p.Refused, p.Hint = why, hint
		return p
	}
	if f.Unit != nil {
		p.unit(f.Unit, b, r)
	}
	c := choice{b, f, r, p.Writers}
	for _, s := range Strategies {
		why := c.against(s)
		switch {
		case why == "" && p.Strategy == "" && (r.Strategy == "" || r.Strategy == s):
			p.Strategy = s
			p.Reasons = append(p.Reasons, c.reason(s))
		case why == "" && r.Strategy != "":
			p.Rejected = append(p.Rejected, Rejected{s, "it was not asked for"})
		case why == "":
			p.Rejected = append(p.Rejected, Rejected{s, "it is not needed: " + string(p.Strategy) + " can be had"})
		default:
			p.Rejected = append(p.Rejected, Rejected{s, why})
		}
	}
	if p.Strategy == "" {
		p.Refused, p.Hint = c.none()
		return p
	}
	p.Warnings = c.warnings(p.Strategy)
	p.Steps = c.steps(p.Strategy)
	return p
}

// writers decides whether two instances may run at once, and says why.
func (p *Plan) writers(b engine.Blueprint, r Request) Writers {
	switch {
	case r.Writers != WritersGuessed:
		return r.Writers
	case b.SystemdUnit != "":
		return WritersOne // one instance of a unit
	}
	if m := writable(b.Volumes); m != nil {
		p.Reasons = append(p.Reasons, fmt.Sprintf("%s can be written to, so only one instance at a time may run on it (--writers many says otherwise)", m.Destination))
		return WritersOne
	}
	p.Reasons = append(p.Reasons, "no volume of it can be written to, so two instances may run at once")
	return WritersMany
}

func writable(volumes []engine.Mount) *engine.Mount {
	i := slices.IndexFunc(volumes, func(m engine.Mount) bool { return !m.ReadOnly })
	if i < 0 {
		return nil
	}
	return &volumes[i]
}

// refusal is what no strategy can help against.
func refusal(b engine.Blueprint, f Facts, r Request) (why, hint string) {
	switch {
	case !b.State.Alive():
		return "it does not run", "a container that does not run needs no renewal: change it and start it"
	case b.State == engine.Paused:
		return "it is paused", "unpause it first: " + b.Engine + " unpause " + b.Name
	case f.Sharer != "" && !b.NetworkKept && r.Strategy != Restart:
		return "its network goes with it, and is used from outside of it, too: by " + f.Sharer,
			"put both into a pod, whose network stays; or renew it with --strategy restart, and start the other again afterwards"
	case b.SystemdUnit != "":
		return unitRefusal(b, f, r)
	case f.Inherited && f.Successor == nil:
		return "its listening sockets were given to it by who started it (LISTEN_FDS), and an engine cannot give them to a successor",
			"whoever holds the sockets keeps what arrives while it is away: stop it there and start it with the new profile"
	case b.AutoRemove && r.Retire == RetireKeep:
		return "the engine removes it when it stops (--rm), so that it cannot be kept", "start it without --rm"
	case r.Successor == "" && b.Labels[oracleLabel] != "":
		return "it is an oracle, which its agent ends, and which a successor of it would outlive", "whittle loop status says when production is back: renew that"
	case r.Successor == "" && len(b.Problems) > 0:
		return "a successor would not be the same: " + strings.Join(b.Problems, "; "), "stop it, and start it by hand with the new profile"
	}
	if s := f.Successor; s != nil {
		return unfit(b, *s)
	}
	return "", ""
}

// oracleLabel is on the oracles that the agent makes (agent.OracleLabel). That anybody may set it does no harm here.
const oracleLabel = "io.whittle.oracle"

// unfit says why an existing container cannot take over.
func unfit(b, s engine.Blueprint) (why, hint string) {
	switch {
	case s.ID == b.ID:
		return "it cannot be its own successor", "name another container"
	case s.State.Alive():
		return fmt.Sprintf("the successor %s runs already", s.Name), fmt.Sprintf("stop it first: %s stop %s", s.Engine, s.Name)
	case s.Network != b.Network:
		return fmt.Sprintf("the successor %s is in another network (%s, and not %s)", s.Name, s.Network, b.Network),
			"make it with the same --network"
	case s.AutoRemove:
		return fmt.Sprintf("the successor %s is removed when it stops", s.Name), "make it without --rm"
	}
	return "", ""
}

// choice of a strategy.
type choice struct {
	b       engine.Blueprint
	f       Facts
	r       Request
	writers Writers
}

// against a strategy; "" if it can be had.
func (c choice) against(s Strategy) string {
	switch s {
	case Overlap:
		switch {
		case c.f.Unit != nil:
			return "systemd runs one instance of a unit"
		case c.writers == WritersOne:
			return "two instances would write to the same volume"
		}
		return cmp.Or(c.againstPublished(), c.againstAddress(), c.againstLine())
	case Socket:
		return c.againstSocket()
	case Hold:
		return cmp.Or(c.againstStop(), c.againstGiven(), c.againstLine())
	case Gate:
		return cmp.Or(c.againstStop(), c.againstGiven(), c.againstGate())
	case Restart:
		if c.r.Strategy != Restart {
			return "connections would be refused: it is done only when it is asked for"
		}
		return c.againstStop()
	}
	return "there is no such strategy"
}

// againstStop before the successor serves. A unit makes anew what was removed.
func (c choice) againstStop() string {
	if c.b.AutoRemove && c.f.Unit == nil {
		return "the engine removes the container when it stops (--rm), so that there would be nothing to go back to"
	}
	return ""
}

// againstPublished ports, which lead to one container at a time.
func (c choice) againstPublished() string {
	if !c.b.NetworkKept && len(c.b.Ports) > 0 {
		return "a published port leads to one container at a time"
	}
	return ""
}

// againstLine in which connections wait or are given to either.
func (c choice) againstLine() string {
	switch {
	case len(c.f.Listeners) == 0:
		return "" // nothing can be refused
	case !c.b.NetworkKept:
		return "the container's network goes away with it"
	}
	return c.f.NoTraffic
}

func (c choice) againstGate() string {
	switch {
	case len(c.f.Listeners) == 0:
		return "it listens on no TCP port: nothing would wait"
	case c.b.NetworkKept:
		return "its network stays: what arrives does not pass the host's rules"
	case c.b.Network == engine.NetworkNone:
		return "nothing arrives from the host: it has no network"
	}
	// Of a driver that is not known it cannot be said, either.
	i := slices.IndexFunc(c.b.Networks, func(a engine.Attachment) bool { return a.Driver != "bridge" })
	if i >= 0 {
		return fmt.Sprintf("what arrives by its network %s does not pass the host's rules: its driver is %s", c.b.Networks[i].Network, cmp.Or(c.b.Networks[i].Driver, "not known"))
	}
	return c.f.NoGate
}

func (c choice) reason(s Strategy) string {
	switch s {
	case Overlap:
		if len(c.f.Listeners) == 0 {
			return "it listens on no TCP port, so that nothing has to be moved"
		}
		return "the network stays and both may run at once: the successor gets new connections when it is ready"
	case Socket:
		return c.socketReason()
	case Hold:
		if len(c.f.Listeners) == 0 {
			return "it listens on no TCP port, so that nothing has to wait"
		}
		return "the network stays: new connections wait beside the service while no instance runs"
	case Gate:
		return "its network goes with it: new connections wait at the host (" + c.f.Gate + ")"
	}
	return "it was asked for; connections are refused while no instance runs"
}

// none says that no strategy is left, and what would help.
func (c choice) none() (why, hint string) {
	if c.r.Strategy != "" {
		return fmt.Sprintf("--strategy %s cannot be had: %s", c.r.Strategy, c.against(c.r.Strategy)), "whittle renew --dry-run says which can"
	}
	var all []string
	for _, s := range []Strategy{Overlap, Socket, Hold, Gate} {
		if s == Socket && c.f.Unit == nil {
			continue
		}
		all = append(all, fmt.Sprintf("%s: %s", s, c.against(s)))
	}
	why = "without refusing connections it cannot be: " + strings.Join(all, "; ")
	switch {
	case c.f.Unit != nil:
	case c.b.AutoRemove && c.writers == WritersOne && c.r.Writers == WritersGuessed:
		return why, "if two instances may run on its volumes, say so with --writers many; or start it without --rm"
	case c.b.AutoRemove:
		return why, "start it without --rm, so that there is something to go back to"
	}
	return why, "if an interruption is acceptable: --strategy restart"
}

func (c choice) warnings(s Strategy) (all []string) {
	for _, u := range c.f.Unmovable {
		all = append(all, fmt.Sprintf("%s %s is not moved: %s", u.Kind, u.Name, u.Why))
	}
	if s != Overlap && len(c.f.Listeners) > 0 {
		all = append(all, "established connections end when the predecessor stops; what the service does not finish by itself is lost")
	}
	if c.r.Successor == "" && c.r.Retire == RetireRemove && (c.f.Unit == nil || c.b.AutoRemove) && writable(c.b.Volumes) == nil {
		text := "what it wrote to its own file system, outside of volumes, goes with it"
		if c.f.Unit == nil {
			text += " (--keep keeps the predecessor)"
		}
		all = append(all, text)
	}
	if c.r.Retire == RetireKeep && c.b.RestartPolicy != "" && c.b.RestartPolicy != "no" {
		all = append(all, fmt.Sprintf("the predecessor keeps its restart policy (%s): the engine may start it again when the host boots", c.b.RestartPolicy))
	}
	if c.f.Sharer != "" && !c.b.NetworkKept {
		all = append(all, "what shares its network is left without one, and has to be started again: "+c.f.Sharer)
	}
	if c.f.Unit != nil {
		return append(all, c.unitWarnings(s)...)
	}
	if s != Overlap && c.b.RestartPolicy == "always" {
		all = append(all, "its engine starts whatever has the restart policy always when the host boots: if that happens in the middle, both run until whittle renew --recover")
	}
	if w := c.warnAddress(s); w != "" && !c.b.NetworkKept && c.b.Network == engine.NetworkPrivate {
		all = append(all, w)
	}
	return all
}

// steps of a strategy, without those that have nothing to do.
func (c choice) steps(s Strategy) []Step {
	var all []Step
	switch {
	case c.f.Unit != nil:
		all = unitSteps(s)
	case s == Overlap:
		all = []Step{StepMake, StepInit, StepForm, StepStart, StepListen, StepReady, StepTurn, StepDrain, StepRelease, StepAway, StepName, StepRemove}
	case s == Hold:
		all = []Step{StepMake, StepInit, StepForm, StepHold, StepStop, StepStart, StepListen, StepReady, StepTurn, StepRelease, StepAway, StepName, StepRemove}
	case s == Gate:
		all = []Step{StepMake, StepHold, StepStop, StepStart, StepListen, StepReady, StepTurn, StepAway, StepName, StepRemove}
	case s == Restart:
		all = []Step{StepMake, StepInit, StepStop, StepStart, StepListen, StepReady, StepTurn, StepAway, StepName, StepRemove}
	}
	return slices.DeleteFunc(all, func(step Step) bool {
		switch step {
		case StepMake, StepAway, StepName:
			return c.r.Successor != ""
		case StepProfile:
			return c.r.Changes.Seccomp == ""
		case StepInit:
			// Where the network is the container's own, it is connected by then, and published ports have one owner.
			return !c.f.Inits || !c.b.NetworkKept && len(c.f.Listeners) > 0
		case StepForm, StepHold, StepListen, StepRelease:
			return len(c.f.Listeners) == 0
		case StepRemove:
			return c.r.Retire == RetireKeep
		}
		return false
	})
}

// readyText says how readiness is told.
func readyText(b engine.Blueprint, f Facts, r Ready) string {
	listens := "it listens on the same ports"
	if len(f.Listeners) == 0 {
		listens = "it runs"
	}
	switch {
	case r.Command != "":
		return listens + ", and the command " + r.Command + " succeeds"
	case r.HTTP != "":
		return listens + ", and " + r.HTTP + " is answered"
	case b.HasHealthcheck:
		return listens + ", and its health check says so"
	case len(f.Listeners) == 0:
		return listens
	}
	return listens + " and accepts a connection"
}
