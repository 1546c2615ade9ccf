// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/renew"
)

// exchange is how production and its oracle take each other's place. When, and what is learned meanwhile, is the driver's.
type exchange interface {
	// there: the oracle takes production's place, unless it has. leaves is called once new connections go to production no more.
	there(ctx context.Context, leaves func()) error
	// look whether the oracle still serves, and tell the driver what has ended that.
	look(ctx context.Context)
	// back to production, unless it is; what is there now, for people.
	back(ctx context.Context) (what string, err error)
	// clear away the oracle and what it wrote, when production serves.
	clear(ctx context.Context) error
}

// What there is at the end of a loop.
const (
	servesAgain = "production serves again"
	notThere    = "production's container is not there any more"
	wasStopped  = "somebody has stopped production"
)

func (d *driver) exchange() exchange {
	if d.where().OracleUnit != "" {
		return byUnit{d}
	}
	return byRenewal{d}
}

// byRenewal of one container by the other, which the engine has both.
type byRenewal struct{ *driver }

func (x byRenewal) there(ctx context.Context, leaves func()) error {
	site := x.where()
	return x.swap(ctx, site.Production, site.Oracle, x.agent.limits(x.specNow()).Boot, leaves)
}

func (x byRenewal) look(ctx context.Context) {
	maker := x.maker()
	c, err := inspect(ctx, maker, x.where().Oracle)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, engine.ErrUnknownContainer):
		x.failed("somebody has removed the oracle")
	case err != nil:
		x.trouble(fmt.Errorf("look at the oracle: %w", err))
	case !c.State.Alive():
		x.died(ctx, maker, c.ID)
	default:
		if old, err := inspect(ctx, maker, x.where().Production); err == nil && old.State.Alive() {
			x.failed("somebody has started production beside its oracle")
		}
	}
}

// returnPatience is how long production may take to get ready before the oracle goes on in its place.
const returnPatience = time.Minute

// back to production. An oracle that was not made, or not started, is in nobody's way.
func (x byRenewal) back(ctx context.Context) (what string, err error) {
	site, maker := x.where(), x.maker()
	_, err = inspect(ctx, maker, site.Production)
	if errors.Is(err, engine.ErrUnknownContainer) {
		return notThere, nil // somebody has removed it; the oracle does not stay in its place
	}
	if err != nil {
		return "", err
	}
	from := cmpOr(site.Oracle, site.OracleName)
	if from == "" {
		ctx, cancel := context.WithTimeout(ctx, engineTime)
		defer cancel()
		return servesAgain, maker.Start(ctx, site.Production)
	}
	x.fall(ctx, maker, from)
	err = x.swap(ctx, from, site.Production, returnPatience, func() {})
	if err == nil || ctx.Err() != nil || errors.Is(err, errNotYet) || errors.Is(err, errRolledBack) {
		return servesAgain, err // after a rollback the oracle serves: better than nobody
	}
	// Nobody has to stay in the oracle because a service cannot be moved: to stop and to start is possible.
	x.lose("connections were refused between a stop and a start: " + err.Error())
	return servesAgain, x.stopStart(ctx, maker, from, site.Production, unready, returnPatience)
}

func (x byRenewal) clear(ctx context.Context) error {
	site, maker := x.where(), x.maker()
	if ref := cmpOr(site.Oracle, site.OracleName); ref != "" {
		stopped, cancel := context.WithTimeout(ctx, engineTime)
		defer cancel()
		if err := renew.StopForGood(stopped, maker, ref, unready); err != nil {
			return err
		}
		if err := maker.Remove(stopped, ref); err != nil {
			return err
		}
	}
	x.unguard()
	x.reported(true) // whatever it wrote last counts
	x.agent.twins.forget(site.Oracle)
	if site.Dir != "" {
		if err := os.RemoveAll(x.agent.oracleDir(site)); err != nil {
			x.agent.Log.Error("remove what an oracle wrote", "err", err)
		}
	}
	site.Oracle, site.OracleName, site.Dir = "", "", ""
	x.at(site)
	return nil
}
