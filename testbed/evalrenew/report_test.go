// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/renew"
)

func TestOurs(t *testing.T) {
	ms := func(all ...int) (out []time.Duration) {
		for _, n := range all {
			out = append(out, time.Duration(n)*time.Millisecond)
		}
		return out
	}
	renewal := func(chose renew.Strategy, silence, drain int) round {
		return round{stats: stats{Silence: ms(silence)[0]}, Drain: ms(drain)[0], Chose: chose}
	}
	own := own{boots: ms(40, 50, 90), stops: ms(20, 30, 60)}
	for _, test := range []struct {
		name   string
		way    string
		rounds []round
		ours   string
		bar    string
	}{
		{"two instances run", chosen, []round{renewal(renew.Overlap, 20, 0), renewal(renew.Overlap, 140, 0), renewal(renew.Overlap, 160, 0)},
			"140 ms (160 ms)", "150 ms: met, **missed**"},
		{"one at a time", chosen, []round{renewal(renew.Hold, 100, 0), renewal(renew.Hold, 150, 0)}, "70 ms (70 ms)", "150 ms: met, met"},
		{"what is slow is finished first", chosen, []round{renewal(renew.Gate, 700, 500), renewal(renew.Gate, 300, 10), renewal(renew.Gate, 320, 0)},
			"220 ms (240 ms)", "150 ms: **missed**, **missed**"},
		{"the engine's own way", restart, []round{renewal("", 900, 0)}, "-", "150 ms: **missed**, **missed**"},
		{"not measured", chosen, nil, "-", "-"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := result{service: &service{kind: "it", about: "a service"}, way: ways[test.way], own: own, rounds: test.rounds}
			if ours, bar := spread(r.ours()), r.bar(); ours != test.ours || bar != test.bar {
				t.Errorf("ours: %s, bar: %s; want %s and %s", ours, bar, test.ours, test.bar)
			}
			text := report([]result{r}, options{}, 0)
			if want := fmt.Sprintf("| %s | %s |", test.ours, test.bar); !strings.Contains(text, want) {
				t.Errorf("the report does not have %s:\n%s", want, text)
			}
			columns := 0
			for line := range strings.Lines(text) {
				if n := strings.Count(line, " | "); n > 0 && columns > 0 && n != columns {
					t.Errorf("%d columns, want %d: %s", n, columns, line)
				} else if n > 0 {
					columns = n
				}
			}
		})
	}
}
