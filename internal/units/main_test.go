// SPDX-License-Identifier: Apache-2.0

package units

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
	"golang.org/x/sys/unix"
)

// The units of the tests run this binary: as a service, as what prints its arguments, and as what switches.
func TestMain(m *testing.M) {
	var act func(args []string) error
	if len(os.Args) > 1 {
		act = map[string]func([]string) error{"serve": serve, "words": printWords, "switch": switchTo}[os.Args[1]]
	}
	if act == nil {
		testenv.Main(m)
		return
	}
	if err := act(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve NAME DIR: one of two that must not run at once. It holds the lock in DIR while it lives, however it ends, and notes
// in DIR/log when it began and ended.
func serve(args []string) error {
	name, dir := args[0], args[1]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	note := func(what string) {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			panic(err)
		}
		fmt.Fprintf(log, "%s %s %d\n", name, what, now.Nano())
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		note("overlap")
		return err
	}
	orders := make(chan os.Signal, 4)
	signal.Notify(orders, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	note("start")
	for order := range orders {
		switch {
		case order == unix.SIGUSR1:
			note("abort")
			os.Exit(66)
		case order == unix.SIGTERM && len(args) > 2:
			continue // it does not want to end
		}
		// Who starts the other one too early is to be seen.
		time.Sleep(100 * time.Millisecond)
		note("end")
		return nil
	}
	return nil
}

// printWords FILE WORD…: its own arguments, as it got them.
func printWords(args []string) error {
	text, err := json.Marshal(map[string]any{"words": args[1:], "env": os.Getenv("WORD")})
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], text, 0o644)
}

func switchTo(args []string) error { return Switch(context.Background(), args[0], args[1]) }
