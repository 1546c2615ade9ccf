// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
)

// armPatience is how long an oracle may serve before its hardening is seen: where nobody was connected to production, it is not
// waited for that the oracle is ready.
const armPatience = 20 * time.Second

// maxHardened is how much of a process's mappings, and of the names of reports, is looked at.
const maxHardened = 1024

// vouched tells whether what the oracle reaches may count: it was seen to have its hardening. Nothing is learned before. One
// that shows none ends its loop.
func (d *driver) vouched(ctx context.Context, state loop.State) bool {
	site := d.where()
	if site.Armed {
		return true
	}
	now := d.agent.Now()
	switch state {
	case loop.InOracle:
	case loop.ToOracle:
		return false // it is asked when it serves
	default:
		d.void("what it reached says nothing, as it was not seen to have its hardening: " + cmpOr(d.unarmed, "it ended too soon"))
		return false
	}
	if now.Sub(d.armLooked) < lookEvery {
		return false
	}
	d.armLooked = now
	maker := d.maker()
	if maker == nil {
		return false // watch says so
	}
	c, err := inspect(ctx, maker, site.Oracle)
	if err != nil {
		return false // watch says so
	}
	err = d.agent.Moving.armed(c, d.specNow(), d.agent.oracleDir(site))
	d.mu.Lock()
	defer d.mu.Unlock()
	record, _ := d.machine.Record()
	if err != nil {
		d.unarmed = err.Error()
	}
	switch {
	case err == nil:
		d.site.Armed, d.unarmed = true, ""
	case now.Sub(record.Served) >= armPatience:
		d.machine.Void(now, "what it reaches says nothing: "+err.Error())
	}
	return d.site.Armed
}

// void what the oracle has reached: it is none.
func (d *driver) void(why string) {
	d.mu.Lock()
	d.machine.Void(d.agent.Now(), why)
	d.mu.Unlock()
	d.stir()
}

// armed reports whether the processes of an oracle that serve have its hardening, and else why not. Where none listens, as of a
// service without TCP, any process will do.
func (m *Moving) armed(c engine.Container, spec oracle.Spec, dir string) error {
	if m.Armed != nil {
		return m.Armed(c, spec, dir)
	}
	names := reportNames(dir)
	r, err := requestFor(api.Container{Container: c.Container})
	if err != nil {
		return fmt.Errorf("look for the hardening: %w", err)
	}
	pids := processesOf(r)
	listeners, _ := listenersOf(c.PID, pids)
	err = errors.New("it has no process")
	for _, pid := range pids[:min(len(pids), maxHardened)] {
		if len(listeners) > 0 && !listeners[pid] {
			continue
		}
		err = armedProcess(pid, spec, names)
		switch {
		case err == nil && len(listeners) == 0:
			return nil
		case err != nil && len(listeners) > 0:
			return fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return err
}

func armedProcess(pid int, spec oracle.Spec, names []string) error {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/maps")
	if err != nil {
		return fmt.Errorf("look for the hardening: %w", err)
	}
	defer f.Close()
	return spec.Armed(f, names)
}

// reportNames in what is mounted into an oracle.
func reportNames(dir string) []string {
	d, err := os.Open(filepath.Join(dir, "reports"))
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(maxHardened)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return names
}
