# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists the targets. Everything runs from a fresh clone; what needs root says so.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL: # the go command uses all cores itself, and the stages are timed

# go run builds it once, with our own toolchain; the cache keeps it.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

BIN      ?= bin
FUZZTIME ?= 2s
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# -buildvcs=false: the stamp differs between a clone and an archive of the same sources; the version is given instead.
BUILD    := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X main.version=$(VERSION)'
STAGE    := @scripts/stage
SKIPPED  := .cache/skipped

export FUZZTIME
# As make build compiles: what one stage has compiled, the others need not.
check fuzz: export GOFLAGS += -trimpath

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the static, reproducible binary bin/whittle
	$(BUILD) -o $(BIN)/whittle ./cmd/whittle

.PHONY: demo
demo: ## learn three services, enforce it while they serve, and attack them (root)
	@./demo/run.sh

.PHONY: test
test: ## everything: checks, fuzzing, all tests (as root it installs what is missing)
	@mkdir -p $(dir $(SKIPPED)) && rm -f $(SKIPPED)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! scripts/deps -n test >/dev/null; then scripts/deps test; fi
	@$(MAKE) --no-print-directory check fuzz
	@WHITTLE_TEST_SKIPPED=$(CURDIR)/$(SKIPPED) scripts/tests
	@scripts/skipped $(SKIPPED)

.PHONY: unit
unit: ## the tests that need no root, quickly
	go test ./...

.PHONY: check
check: fmt vet staticcheck fix tidy generated ## everything that reads the code without running it

.PHONY: fmt
fmt: ## are the Go files formatted
	$(STAGE) gofmt scripts/empty 'gofmt -w these files' gofmt -l .

.PHONY: vet
vet: ## go vet for amd64 and arm64
	$(STAGE) vet-amd64 env GOARCH=amd64 CGO_ENABLED=0 go vet ./...
	$(STAGE) vet-arm64 env GOARCH=arm64 CGO_ENABLED=0 go vet ./...

.PHONY: staticcheck
staticcheck: ## staticcheck, at a pinned version
	$(STAGE) staticcheck env CGO_ENABLED=0 go run $(STATICCHECK) ./...

.PHONY: fix
fix: ## does the code use what its Go version offers
	$(STAGE) 'go fix' scripts/empty 'go fix ./...' env CGO_ENABLED=0 go fix -diff ./...

.PHONY: tidy
tidy: ## is go.mod what the imports need
	$(STAGE) tidy go mod tidy -diff

.PHONY: generated
generated: ## are generated files what their sources give
	$(STAGE) generated scripts/generated $(SKIPPED)

.PHONY: generate
generate: ## rebuild the checked-in BPF objects (clang)
	@go generate ./internal/kernel/... ./internal/traffic/...

.PHONY: corpus
corpus: ## record real services again, for the judges' rules (root; installs their packages)
	@go run ./testbed/corpus

.PHONY: eval-judges
eval-judges: build ## evaluate the panel of judges with real services and attacks, into docs/judges.md (root; half an hour)
	@go run ./testbed/evaljudges -whittle $(BIN)/whittle $(EVAL)

.PHONY: eval-renew
eval-renew: build ## measure what clients see of renewals, into docs/benchmarks-renewal.md (root; a quarter of an hour)
	@go run ./testbed/evalrenew -whittle $(BIN)/whittle $(EVAL)

.PHONY: eval-loops
eval-loops: build ## from an empty policy to serving, attacked and compared, into docs/benchmarks-loops.md (root; ten minutes)
	@go run ./testbed/evalloops -whittle $(BIN)/whittle $(EVAL)

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (2s)
	$(STAGE) fuzz scripts/fuzz

.PHONY: bench
bench: build ## measure what observing and enforcing cost (root)
	@go run ./testbed/bench

.PHONY: other-kernels
other-kernels: ## does it work on Debian's kernels for amd64 and arm64 (root, QEMU, downloads)
	$(STAGE) other-kernels scripts/other-kernel

.PHONY: deps
deps: ## install what the tests need from the distribution (root, apt)
	@scripts/deps test

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist .cache
