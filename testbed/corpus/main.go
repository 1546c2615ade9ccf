// SPDX-License-Identifier: Apache-2.0

// Corpus records what real services do, from their start to their end, and makes the corpus that is shipped of it. It is
// run by `make corpus`, as root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/testbed/services"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "corpus: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	only := flag.String("only", "", "names of services, by commas; none is all")
	flag.Parse()
	var errs []error
	for _, s := range services.All() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), s.Name) {
			continue
		}
		if err := services.Install(ctx, os.Stderr, s); err != nil {
			return err
		}
		errs = append(errs, try(ctx, s))
	}
	return errors.Join(errs...)
}

// try every operation of a service.
func try(ctx context.Context, s services.Service) (err error) {
	began := time.Now()
	i, err := services.Start(ctx, s, services.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Remove()) }()
	fmt.Printf("%s is ready after %.1f s\n", s.Name, time.Since(began).Seconds())
	for _, op := range s.Ops {
		began := time.Now()
		failed := op.Do(ctx, i)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s, %s: %w", s.Name, op.Name, failed))
		}
		fmt.Printf("%s, %s: %.1f s, %v\n", s.Name, op.Name, time.Since(began).Seconds(), failed)
	}
	if err != nil {
		fmt.Println(i.Log())
		for _, name := range s.Logs {
			text, _ := os.ReadFile(i.Path(name))
			fmt.Printf("%s:\n%s", name, text[max(0, len(text)-30000):])
		}
	}
	return errors.Join(err, i.Stop(ctx))
}
