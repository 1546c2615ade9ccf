// SPDX-License-Identifier: Apache-2.0

// Command env starts and removes a private Podman for the demo and for trying things by hand:
//
//	eval "$(go run ./testbed/env up /tmp/bed)"
//	"$WHITTLE_PODMAN" ps
//	go run ./testbed/env down /tmp/bed
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/testbed"
)

func main() {
	runtime := flag.String("runtime", "", "default OCI runtime: runc or crun; whichever is installed")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: env [-runtime runc|crun] up|down DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := run(ctx, flag.Arg(0), flag.Arg(1), *runtime)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "testbed: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, what, dir, runtime string) error {
	switch what {
	case "up":
		e, err := testbed.Up(ctx, dir, runtime)
		if err != nil {
			return err
		}
		for _, variable := range e.Environ() {
			name, value, _ := strings.Cut(variable, "=")
			fmt.Printf("export %s='%s'\n", name, value)
		}
		return nil
	case "down":
		e, err := testbed.Open(dir)
		if err != nil {
			return err
		}
		return e.Down()
	}
	return fmt.Errorf("unknown command %q", what)
}
