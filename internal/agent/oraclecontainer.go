// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/renew"
)

// prepareOracle makes the oracle's container, unless there is one.
func (d *driver) prepareOracle(ctx context.Context) error {
	site := d.where()
	maker := d.maker()
	if maker == nil {
		return fmt.Errorf("whittle cannot make containers of the engine %q", site.Engine)
	}
	if site.Oracle != "" || site.OracleUnit != "" {
		return nil
	}
	b, err := maker.Blueprint(ctx, site.Production)
	if err != nil {
		return fmt.Errorf("look at production: %w", err)
	}
	if ports := renew.Listens(b.Container); ports != nil {
		site.Ports = ports
		d.at(site)
	}
	switch {
	case renew.Sharer(b) != "":
		return fmt.Errorf("production's network goes with it, and %s uses it, too", renew.Sharer(b))
	case b.SystemdUnit != "":
		return d.prepareUnit(ctx, b)
	case b.AutoRemove:
		return errors.New("its engine removes production when it stops (--rm)")
	case len(b.Problems) > 0:
		return fmt.Errorf("nothing like production can be made: %s", strings.Join(b.Problems, "; "))
	}
	if site.OracleName == "" {
		site.Name, site.Writers = b.Name, renew.WritersMany
		if slices.ContainsFunc(b.Volumes, func(m engine.Mount) bool { return !m.ReadOnly }) {
			site.Writers = renew.WritersOne
		}
		site.OracleName = b.Name + "-oracle-" + strings.ToLower(rand.Text()[:6])
		site.Dir = site.OracleName
		d.at(site)
		if err := d.save(ctx); err != nil { // whatever has this name from now on is ours
			return err
		}
	} else if c, err := inspect(ctx, maker, site.OracleName); err == nil {
		return d.madeOracle(ctx, c.ID) // the agent was killed before it knew
	}
	changes, err := d.agent.oracleChanges(d.specNow(), b, site)
	if err != nil {
		return err
	}
	made, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	id, err := maker.Make(made, site.Production, changes)
	if err != nil {
		return fmt.Errorf("make the oracle: %w", err)
	}
	return d.madeOracle(ctx, id)
}

// madeOracle is known by its id before it starts.
func (d *driver) madeOracle(ctx context.Context, id string) error {
	site := d.where()
	d.agent.twins.forget(site.Oracle) // one that a unit had before
	site.Oracle = id
	d.at(site)
	d.agent.twins.known(id, d.twin)
	return d.save(ctx)
}
