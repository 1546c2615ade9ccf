// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/kernel"
)

// maxNewcomers that wait for the filter: podman exec in a loop. The next look at the filters finds the others.
const maxNewcomers = 256

// readArrivals of processes from outside (podman exec) in held containers.
func (a *Agent) readArrivals(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case arrival := <-a.Observer.Arrivals():
			if a.ask(ctx, func(m *model) error { m.arrived(arrival); return nil }) != nil {
				return
			}
		}
	}
}

// arrived in a container that a filter was attached to: what comes from outside does not inherit it. A container that was
// started under its filter brings it to everybody who enters.
func (m *model) arrived(a kernel.Arrival) {
	if c := m.observed[a.Container]; c != nil && c.held != nil && c.held.program != nil {
		m.reach(c, a.PID)
	}
}

// reach processes of an attached container that do not have the filter.
func (m *model) reach(c *tracked, pids ...int) {
	c.newcomers = append(c.newcomers, pids...)
	c.newcomers = c.newcomers[:min(len(c.newcomers), maxNewcomers)]
	if c.reaching || len(c.newcomers) == 0 {
		return
	}
	request := inject.Request{PIDs: c.newcomers, Program: c.held.program, Listener: true, Skip: true}
	for _, pid := range request.PIDs {
		request.Starts = append(request.Starts, startOf(pid))
	}
	c.newcomers, c.reaching = nil, true
	h := c.held
	m.agent.start(func() {
		ctx, cancel := context.WithTimeout(context.Background(), attachTime)
		defer cancel()
		result, err := m.agent.inject(ctx, c, request)
		asked := m.agent.ask(context.Background(), func(m *model) error {
			c.reaching = false
			if c.held != h || c.gone {
				result.Close()
				return nil
			}
			m.reached(c, result, err)
			m.reach(c)
			return nil
		})
		if asked != nil {
			result.Close()
		}
	})
}

func (m *model) reached(c *tracked, r inject.Result, err error) {
	for _, p := range r.Processes {
		if p.Err != "" && err == nil {
			err = fmt.Errorf("process %d: %s", p.PID, p.Err)
		}
		if keepErr := m.keepListeners(c, p); keepErr != nil {
			err = keepErr
		}
	}
	if err != nil {
		m.event(kindProblem, c, fmt.Sprintf("what entered %s from outside does not have its filter: %v", c.view.Name, err))
	}
}

// held calls need listeners: those of a process that was injected go to the supervisor, and duplicates to the holder.
func (m *model) keepListeners(c *tracked, p inject.Process) (err error) {
	for _, fd := range append([]int{p.Listener}, p.More...) {
		if fd < 0 {
			continue
		}
		if keepErr := m.hold(c, p.PID, fd); keepErr != nil && err == nil {
			err = keepErr
		}
	}
	return err
}
