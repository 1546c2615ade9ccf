// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
)

// shown is an agent that shows the containers of a store's workloads.
type shown struct {
	answers
	stored agent.Stored
}

func (s *shown) Workloads(ctx context.Context) ([]api.Summary, error) { return s.stored.Workloads(ctx) }
func (s *shown) PolicyVersion(ctx context.Context, ref string, version int) (policy.Policy, error) {
	return s.stored.PolicyVersion(ctx, ref, version)
}

// BenchmarkStatusPage is one second of whittle status --watch with 200 workloads, both sides of the socket.
func BenchmarkStatusPage(b *testing.B) {
	dir := b.TempDir()
	db, err := store.Open(filepath.Join(dir, "state"), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	text, err := os.Open("../../internal/learn/testdata/nginx.policy.json")
	if err != nil {
		b.Fatal(err)
	}
	defer text.Close()
	p, err := policy.Read(text)
	if err != nil {
		b.Fatal(err)
	}
	s := &shown{stored: agent.Stored{Store: db}}
	command := p.Workload.Command
	for i := range 200 {
		p.Workload.Command = append(command[:len(command):len(command)], strconv.Itoa(i))
		if _, err := db.PutPolicy(b.Context(), p, "learned"); err != nil {
			b.Fatal(err)
		}
		s.Stat.Containers = append(s.Stat.Containers, api.Container{WorkloadID: p.Workload.ID(), WorkloadName: p.Workload.Name()})
	}
	l, err := api.Listen(filepath.Join(dir, "socket"))
	if err != nil {
		b.Fatal(err)
	}
	server := api.Server{Backend: s, Version: "v9", Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	defer func() { cancel(); <-done }()
	client := api.NewClient(filepath.Join(dir, "socket"))
	defer client.Close()
	for b.Loop() {
		page, err := statusOf(ctx, client, "")
		if err != nil || len(page.Containers) != 200 {
			b.Fatalf("%d containers, %v", len(page.Containers), err)
		}
	}
}
