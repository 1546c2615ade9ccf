// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/whittle-sec/whittle/internal/kernel"
)

const attachRounds = 21

// attach measures how long it takes to begin and to end observing.
func (b *bench) attach(ctx context.Context) error {
	times := map[string]series{}
	timed := func(name string, f func() error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := time.Now()
		err := f()
		times[name] = append(times[name], sample{float64(time.Since(start)) / 1e6, true})
		return err
	}
	p, err := loadEmpty()
	if err != nil {
		return err
	}
	defer p.Close()
	for i := range attachRounds {
		var bare link.Link
		if err := timed("bare attach", func() (err error) {
			bare, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: p})
			return err
		}); err != nil {
			return err
		}
		if err := timed("bare detach", bare.Close); err != nil {
			return err
		}
		if i%3 == 0 { // loading takes long
			if err := attachOnce(timed); err != nil {
				return err
			}
		}
	}
	t := b.report.table("Beginning and ending", "How long these take, in ms. Nothing is attached before the first container and after the "+
		"last one; seven programs while one is learned from.", "what", "median", "least", "most")
	for _, row := range [][2]string{
		{"load and verify the programs, once", "open"},
		{"begin observing the first container: attach everything", "first"},
		{"begin observing another one", "second"},
		{"end observing one of two: read and forget what is known", "finish"},
		{"end observing the last one: the same, and detach everything", "last"},
		{"attach an empty program", "bare attach"},
		{"detach it", "bare detach"},
	} {
		s := times[row[1]]
		t.row(row[0], ms(s.median()), ms(s.least()), ms(s.most()))
	}
	return nil
}

func attachOnce(timed func(string, func() error) error) (err error) {
	var o *kernel.Observer
	if err := timed("open", func() (err error) {
		o, err = kernel.Open(slog.New(slog.NewTextHandler(io.Discard, nil)))
		return err
	}); err != nil {
		return err
	}
	defer func() {
		if closed := o.Close(); err == nil {
			err = closed
		}
	}()
	var first, second kernel.ID
	for _, step := range []struct {
		name string
		do   func() error
	}{
		// Cgroups that nobody has: nothing is ever recorded of them.
		{"first", func() (err error) { first, err = o.Observe(kernel.Target{CgroupID: 1<<41 + 1}); return err }},
		{"second", func() (err error) { second, err = o.Observe(kernel.Target{CgroupID: 1<<41 + 2}); return err }},
		{"finish", func() error { _, err := o.Finish(second, true); return err }},
		{"last", func() error { _, err := o.Finish(first, true); return err }},
	} {
		if err := timed(step.name, step.do); err != nil {
			return err
		}
	}
	return nil
}

func ms(v float64) string { return fmt.Sprintf("%.2f", v) }
