// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/oracle"
)

// lookEvery is how often the oracle's container is asked after while nothing tells that it has ended.
const lookEvery = 500 * time.Millisecond

// watch the oracle while it serves: what it reports, and whether it lives.
func (d *driver) watch(ctx context.Context) {
	if d.reported(false) {
		return
	}
	now := d.agent.Now()
	d.mu.Lock()
	out := d.oracleOut
	d.mu.Unlock()
	if !out && now.Sub(d.looked) < lookEvery {
		return
	}
	d.looked = now
	if d.maker() == nil {
		d.failed(fmt.Sprintf("no engine is called %q any more", d.where().Engine))
		return
	}
	d.exchange().look(ctx)
}

// reported tells the machine of new reports; ended says that none is being written any more.
func (d *driver) reported(ended bool) bool {
	site := d.where()
	if site.Dir == "" {
		return false
	}
	found, err := d.reports.look(d.agent.oracleDir(site), ended)
	if err != nil {
		d.agent.Log.Warn("look for an oracle's reports", "err", err)
	}
	return d.aborted(found)
}

// died: the oracle has ended by itself. Its hardening has ended it, or it does not work. What it wrote last is read first.
func (d *driver) died(ctx context.Context, maker engine.Maker, id string) {
	if d.reported(true) {
		return
	}
	exit, err := maker.Exit(ctx, id)
	if err != nil {
		d.failed("the oracle ended, and the engine does not say how: " + err.Error())
		return
	}
	logs, _ := maker.Logs(ctx, id, 100)
	report, err := logged(logs)
	switch {
	case err == nil:
	case d.specNow().Kind.Aborts(exit.Code):
		report = oracle.Report{Kind: "unknown", Summary: fmt.Sprintf("it ended with %d", exit.Code), Text: logs}
	default:
		why := fmt.Sprintf("the oracle ended with %d", exit.Code)
		if exit.OOM {
			why += ", for want of memory"
		}
		if exit.Error != "" {
			why += ": " + exit.Error
		}
		d.failed(why)
		return
	}
	d.aborted([]oracle.Report{report})
}

// aborted tells the machine of the first report, and people of it and how many more there are.
func (d *driver) aborted(found []oracle.Report) bool {
	if len(found) == 0 {
		return false
	}
	r := found[0]
	r.Time = d.agent.Now() // a file says of itself what whoever wrote it likes
	d.mu.Lock()
	d.machine.Aborted(d.agent.Now(), r)
	d.mu.Unlock()
	text := "the oracle aborted: " + r.Summary
	if r.Location != "" {
		text += " at " + r.Location
	}
	if len(found) > 1 {
		text += fmt.Sprintf(" (and %d more reports)", len(found)-1)
	}
	d.tell(text + "; what it reached just before is not learned")
	d.stir()
	return true
}
