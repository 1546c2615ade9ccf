// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/units"
)

// Systemd switches between the units of a service and its oracle; package units says what each means.
type Systemd interface {
	Excludes(ctx context.Context, from, to string) error
	Switch(ctx context.Context, from, to string) error
	Show(ctx context.Context, unit string) (units.Status, error)
	Within(ctx context.Context, unit string, pid int) (bool, error)
}

// systemctl is the Systemd of this host.
type systemctl struct{}

func (systemctl) Excludes(ctx context.Context, from, to string) error {
	return units.Excludes(ctx, from, to)
}

func (systemctl) Switch(ctx context.Context, from, to string) error {
	return units.Switch(ctx, from, to)
}

func (systemctl) Show(ctx context.Context, unit string) (units.Status, error) {
	return units.Show(ctx, unit)
}

func (systemctl) Within(ctx context.Context, unit string, pid int) (bool, error) {
	return units.Within(ctx, unit, pid)
}

func (m *Moving) systemd() Systemd {
	if m.Systemd == nil {
		return systemctl{}
	}
	return m.Systemd
}

// prepareUnit looks whether the unit that manages production is one of a pair, whose other one is the oracle that is set. Nothing
// is made: systemd has the oracle's container made when it starts.
func (d *driver) prepareUnit(ctx context.Context, b engine.Blueprint) error {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	sys, unit := d.agent.Moving.systemd(), b.SystemdUnit
	name := strings.TrimSuffix(unit, ".service")
	other := name + units.Suffix + ".service"
	if err := sys.Excludes(ctx, unit, other); err != nil {
		return fmt.Errorf("the unit %s would start production again: whittle oracle unit writes units for both: %w", unit, err)
	}
	// What manages a container its label says, which an image may bring.
	within, err := sys.Within(ctx, unit, b.PID)
	if err != nil {
		return err
	}
	if !within {
		return fmt.Errorf("production says that the unit %s manages it, and systemd does not know it there", unit)
	}
	is, err := sys.Show(ctx, other)
	if err != nil {
		return err
	}
	site := d.where()
	site.Name, site.Unit, site.OracleUnit, site.OracleName, site.Dir = b.Name, unit, other, name+units.Suffix, name
	start, err := startOfOracle(d.specNow(), b, d.agent.oracleDir(site))
	if err != nil {
		return err
	}
	made, err := OracleMade(start)
	if err != nil {
		return err
	}
	switch {
	case !strings.Contains(is.Command, OracleMadeLabel+"="+made):
		return fmt.Errorf("the unit %s was not written for the oracle that is set now: write it again with whittle oracle unit, and systemctl daemon-reload", other)
	case is.Runs() || is.Moving():
		return fmt.Errorf("systemd is about to start %s already, or ends it", other)
	}
	// What an oracle before it wrote is none of its reports.
	if err := writeOracle(d.agent.oracleDir(site), start.Files); err != nil {
		return fmt.Errorf("write what is mounted into the oracle: %w", err)
	}
	d.reports = reports{} // the directory is called as the one before
	d.at(site)
	return d.save(ctx) // the agent that goes on from here asks systemd
}

// byUnit has systemd stop one unit and start the other. There is a container of each while its unit runs.
type byUnit struct{ *driver }

func (x byUnit) there(ctx context.Context, leaves func()) error {
	site := x.where()
	if site.Oracle != "" { // it was started before the agent was killed
		is, err := x.agent.Moving.systemd().Show(ctx, site.OracleUnit)
		if err != nil {
			return err
		}
		if !is.Runs() && !is.Moving() {
			x.ended(is)
			return fmt.Errorf("%w: its oracle has served", errNotYet)
		}
	}
	x.stand(ctx, site.Production)
	return x.turn(ctx, site.Unit, site.OracleUnit, leaves, func(context.Context) (string, error) {
		if site = x.where(); site.Oracle == "" {
			return "", fmt.Errorf("%s runs, and the agent was not told of its container before it started: nothing would hold its calls", site.OracleUnit)
		}
		return site.Oracle, nil
	})
}

const (
	// unitLook is how often it is asked how far systemd is.
	unitLook = 100 * time.Millisecond
	// unitTime is what a switch may take besides the oracle's boot: the other's end, which its unit bounds.
	unitTime = 2 * time.Minute
)

// turn from one unit to the other, whose container found finds when it runs.
func (x byUnit) turn(ctx context.Context, from, to string, leaves func(), found func(context.Context) (string, error)) error {
	boot := x.agent.limits(x.specNow()).Boot
	ctx, cancel := context.WithTimeout(ctx, 2*boot+unitTime)
	defer cancel()
	waits := x.guard != nil
	return x.handOver(ctx, boot, func(ctx context.Context) (string, error) {
		if err := x.change(ctx, from, to, leaves, waits); err != nil {
			return "", err
		}
		return found(ctx)
	})
}

// change from one unit to the other. Where nothing waits, connections are refused until the other one listens.
func (x byUnit) change(ctx context.Context, from, to string, leaves func(), waits bool) error {
	sys := x.agent.Moving.systemd()
	began := x.agent.Now()
	done := make(chan error, 1)
	go func() { done <- sys.Switch(ctx, from, to) }()
	tick := time.NewTicker(unitLook)
	defer tick.Stop()
	for stopped := false; ; {
		select {
		case err := <-done:
			leaves()
			if err == nil && !waits {
				x.lose(fmt.Sprintf("connections were refused while systemd stopped %s and started %s (%s), and until that one listened",
					from, to, x.agent.Now().Sub(began).Round(time.Millisecond)))
			}
			return err
		case o := <-x.starting:
			o.known <- x.madeOracle(ctx, o.id)
		case <-tick.C:
			if stopped {
				continue
			}
			if is, err := sys.Show(ctx, from); err == nil && !is.Runs() {
				// It was asked to end: a call that waits would keep it from that.
				began, stopped = x.agent.Now(), true
				leaves()
			}
		}
	}
}

func (x byUnit) look(ctx context.Context) {
	site := x.where()
	is, err := x.agent.Moving.systemd().Show(ctx, site.OracleUnit)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		x.trouble(err)
	case is.Runs():
		_, err := inspect(ctx, x.maker(), site.Oracle)
		if errors.Is(err, engine.ErrUnknownContainer) {
			x.failed("somebody has started " + site.OracleUnit + " anew")
		}
	case !is.Moving():
		x.ended(is)
	}
}

// ended: the oracle's unit does not run any more. Its container went with it, and what that wrote to its log.
func (x byUnit) ended(is units.Status) {
	switch {
	case x.reported(true):
	case x.specNow().Kind.Aborts(is.Exit):
		x.aborted([]oracle.Report{{Kind: "unknown", Summary: fmt.Sprintf("it ended with %d", is.Exit)}})
	default:
		x.failed(fmt.Sprintf("the oracle's unit has ended, and systemd brings production back: %s, with %d", is.Result, is.Exit))
	}
}

// back to production, unless systemd is at it, or somebody has stopped it: whoever did both does not want it started.
func (x byUnit) back(ctx context.Context) (what string, err error) {
	site, sys := x.where(), x.agent.Moving.systemd()
	of, err := sys.Show(ctx, site.OracleUnit)
	if err != nil {
		return "", err
	}
	is, err := sys.Show(ctx, site.Unit)
	if err != nil {
		return "", err
	}
	switch {
	case of.Runs(), of.State == "activating", of.Pending:
		err = x.turn(ctx, site.OracleUnit, site.Unit, func() {}, x.production)
	case of.Moving(), is.Moving():
		return "", fmt.Errorf("%w: systemd is about it", errNotYet)
	case is.Runs(): // by systemd
		if x.guard == nil {
			break
		}
		if err := x.handOver(ctx, returnPatience, x.production); err != nil {
			x.lose("who waited was not given to production: " + err.Error()) // it runs all the same
		}
	case !is.Loaded:
		return notThere, nil
	case is.State == "inactive":
		return wasStopped, nil
	default: // it has failed
		err = x.turn(ctx, site.OracleUnit, site.Unit, func() {}, x.production)
	}
	if err != nil {
		return "", err
	}
	_, _ = x.production(ctx)
	return servesAgain, nil
}

// production that runs now, which is another container than before.
func (x byUnit) production(ctx context.Context) (id string, err error) {
	site := x.where()
	c, err := inspect(ctx, x.maker(), site.Name)
	if err == nil {
		site.Production = c.ID
		x.at(site)
	}
	return c.ID, err
}

// clear what it wrote: its container went with the unit, and the directory is there for whoever starts that by hand.
func (x byUnit) clear(context.Context) error {
	x.unguard()
	x.reported(true) // whatever it wrote last counts
	site := x.where()
	x.agent.twins.forget(site.Oracle)
	dir := x.agent.oracleDir(site)
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "reports")), WriteOracle(dir, nil)); err != nil {
		x.agent.Log.Error("remove what an oracle wrote", "err", err)
	}
	site.Oracle, site.OracleName, site.Unit, site.OracleUnit, site.Dir = "", "", "", "", ""
	x.at(site)
	return nil
}

// newOracle is a container that systemd starts as one.
type newOracle struct {
	id    string
	known chan<- error
}

// announceTime is how long the start of an oracle waits for its driver. The hook that waits for that has a few seconds.
const announceTime = 3 * time.Second

// startedByUnit is the workload whose oracle a container is about to be, since systemd starts it for a time loop: whoever asks runs
// within the oracle's unit. The driver has it stored first.
func (a *Agent) startedByUnit(ctx context.Context, by api.Peer, c engine.Container) *twin {
	if a.Moving == nil || by.UID != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	for _, t := range a.twins.all() {
		site := t.where()
		if t.current() != loop.ToOracle || site.OracleUnit == "" || site.Engine != c.Engine {
			continue
		}
		within, err := a.Moving.systemd().Within(ctx, site.OracleUnit, by.PID)
		if err == nil && within {
			err = t.announce(ctx, c.ID)
		}
		if err != nil {
			a.Log.Warn("an oracle starts, and its loop is not told", "container", c.ID, "err", err)
			continue
		}
		if within {
			return t
		}
	}
	return nil
}

func (t *twin) announce(ctx context.Context, id string) error {
	known := make(chan error, 1)
	select {
	case t.starting <- newOracle{id, known}:
		return <-known // by who waits for nothing else
	case <-ctx.Done():
		return ctx.Err()
	}
}
