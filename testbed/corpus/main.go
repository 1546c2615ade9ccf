// SPDX-License-Identifier: Apache-2.0

// Corpus records what real services do, from their start to their end, and makes the corpus that is shipped of it. It is
// run by `make corpus`, as root. It installs the services' packages; nothing of them is started on the host.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/whittle-sec/whittle/internal/corpus"
	"github.com/whittle-sec/whittle/internal/kernel"
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
	only := flag.String("only", "", "names of services, by commas; what the file has of others is kept")
	list := flag.Bool("list", false, "only list the services and what is done to them")
	out := flag.String("out", "internal/corpus/corpus.bin", "the corpus")
	manifest := flag.String("manifest", "internal/corpus/MANIFEST.md", "how it was made")
	flag.Parse()
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if *list {
		return show(os.Stdout, chosen)
	}
	kept, err := keep(*only, *out)
	if err != nil {
		return err
	}
	made, failed := record(ctx, chosen)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var all []corpus.Service
	for _, s := range kept {
		if !slices.ContainsFunc(made, func(m corpus.Service) bool { return m.Name == s.Name }) {
			all = append(all, s)
		}
	}
	c := corpus.New(append(all, made...))
	var packed bytes.Buffer
	if err := corpus.Write(&packed, c); err != nil {
		return err
	}
	text := describe(c, packed.Len())
	err = errors.Join(os.WriteFile(*out, packed.Bytes(), 0o644), os.WriteFile(*manifest, []byte(text), 0o644))
	return errors.Join(err, failed)
}

func choose(only string) (out []services.Service, err error) {
	if only == "" {
		return services.All(), nil
	}
	for name := range strings.SplitSeq(only, ",") {
		s, ok := services.Find(name)
		if !ok {
			return nil, fmt.Errorf("there is no service %s", name)
		}
		out = append(out, s)
	}
	return out, nil
}

// keep what the file has when only some services are recorded again.
func keep(only, name string) ([]corpus.Service, error) {
	text, err := os.ReadFile(name)
	if only == "" || errors.Is(err, os.ErrNotExist) || err == nil && len(text) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := corpus.Read(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return c.Services(), nil
}

// record services; what could not be started is in the error, and the others are there.
func record(ctx context.Context, chosen []services.Service) (out []corpus.Service, failed error) {
	if err := services.Install(ctx, os.Stderr, chosen...); err != nil {
		return nil, err
	}
	observer, err := kernel.Open(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- observer.Run(running) }()
	defer func() {
		stop()
		<-ended
		failed = errors.Join(failed, observer.Close())
	}()
	r := &recorder{observer: observer, say: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		made, err := r.record(ctx, s)
		if err != nil {
			failed = errors.Join(failed, err)
			r.say("%s: %v", s.Name, err)
			continue
		}
		r.say("%s: %d roles by stage, %d bursts, failed: %v", s.Name, len(made.Roles), len(made.Bursts), made.Failed)
		out = append(out, made)
	}
	return out, failed
}

func show(w io.Writer, all []services.Service) error {
	for _, s := range all {
		fmt.Fprintf(w, "%s: %s (%s)\n", s.Name, s.Doc, strings.Join(s.Packages, " "))
		for _, op := range s.Ops {
			rare := ""
			if op.Rare {
				rare = "rare, "
			}
			fmt.Fprintf(w, "  %-16s %s%s\n", op.Name, rare, op.Doc)
		}
	}
	return nil
}
