// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"
)

// progress says on a terminal what takes so long, until it is stopped. In a pipe it is quiet.
func (a *app) progress(doing string) (stop func()) {
	if !isTerminal(a.talk) {
		return func() {}
	}
	end, done := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			fmt.Fprintf(a.talk, "\rwhittle: %s … %s\x1b[K", doing, time.Since(began).Round(100*time.Millisecond))
			select {
			case <-tick.C:
			case <-end:
				fmt.Fprint(a.talk, "\r\x1b[K")
				return
			}
		}
	}()
	return func() { close(end); <-done }
}

// shellWord is s as one word of a command line that somebody may copy: names come from images and containers.
func shellWord(s string) string {
	s = oneLine(s)
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:@%+=,", r)
	}
	if s != "" && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
