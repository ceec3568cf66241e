# Every check has one target; CI calls only these. `make help` lists them.
SHELL := /bin/bash
GO ?= go
BIN := bin
MODULE := github.com/fairleadhq/fairlead
PROGRAMS := ./agent/cmd/fairlead-agent ./relay/cmd/fairlead-relay ./relay/cmd/fairlead
# -buildvcs=auto stamps the revision where git is there; -trimpath keeps paths of the build machine out.
BUILDFLAGS := -trimpath -buildvcs=auto -ldflags '-s -w -buildid='
FUZZTIME ?= 30s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED ?= 0

.PHONY: build
build: ## the three programs into bin/
	@mkdir -p $(BIN)
	$(GO) build $(BUILDFLAGS) -o $(BIN)/ $(PROGRAMS)

.PHONY: servers
servers: # real database servers for the tests; root on Debian may install them
	@sh internal/testenv/servers/install.sh || [ "$$CI" != true ]

# Packages that are tested at a time: one more than two cores, for those that start the programs mostly wait.
PACKAGES ?= 3

.PHONY: test
test: servers ## every test, with real PostgreSQL and MariaDB servers
	@bash internal/testenv/test.sh $(GO) test -p $(PACKAGES) -timeout 15m ./...

.PHONY: wine
wine: ## the Windows programs and services under Wine; wants a machine that does nothing else
	@FAIRLEAD_TEST_WINE=1 sh internal/testenv/servers/install.sh
	FAIRLEAD_TEST_WINE=1 $(GO) test -count=1 -p 1 -run Wine ./internal/daemon ./internal/e2e

.PHONY: browser
browser: ## the account pages in a real browser (chromium), and the fairlead program that signs in by them
	@FAIRLEAD_TEST_BROWSER=1 sh internal/testenv/servers/install.sh
	FAIRLEAD_TEST_BROWSER=1 $(GO) test -count=1 -timeout 10m ./internal/e2e/browser

.PHONY: race
race: servers ## every test under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 30m ./...

.PHONY: matrix
matrix: ## every route × role × workspace × session, token, expired, revoked, no fresh proof; and every route's row, ETag, idempotency key
	$(GO) test -count=1 -v -run 'Matrix|EveryRoute|EveryChange|EveryCreation' ./relay/api

.PHONY: timing
timing: ## whether the time of a refused sign-in tells who is there; a quarter of an hour of a machine that does nothing else
	FAIRLEAD_TEST_TIMING=1 $(GO) test -count=1 -timeout 40m -v -run TestF1Timing ./relay/api

# What make mutants changes. The checks of people who sign in want hours: MUTANTS='relay/authn'.
MUTANTS ?= internal/allowlist relay/authz

.PHONY: mutants
mutants: ## changes each check of the packages that decide who may do what, one at a time, and names what no test notices
	$(GO) run ./internal/mutant/cmd/fairlead-mutants $(MUTANTS)

.PHONY: e2e
e2e: servers build ## the scenarios through the built programs, and in one process
	$(GO) test -count=1 -timeout 15m ./internal/e2e/...
	FAIRLEAD_BIN=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout 15m ./internal/e2e/...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	@bash internal/testenv/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: ## gofmt, vet (linux and windows), staticcheck, module hygiene
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	GOOS=windows $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod verify
	$(GO) mod tidy -diff

.PHONY: cross
cross: ## builds for every platform that is shipped
	@for t in linux/amd64 linux/arm64 windows/amd64 darwin/arm64; do \
	  echo "build $$t"; GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build $(BUILDFLAGS) -o $(BIN)/$${t/\//-}/ $(PROGRAMS) || exit 1; done

.PHONY: check
check: lint test cross ## what CI runs

.PHONY: demo
demo: build ## the main job on this machine, start to end, with nothing else installed
	@bash internal/testenv/demo.sh once

.PHONY: demo-up
demo-up: build ## the same, left running; prints what to try. make demo-down ends it
	@bash internal/testenv/demo.sh up

.PHONY: demo-down
demo-down: ## ends what demo-up left running
	@bash internal/testenv/demo.sh down

# What fairlead-bench shall do, such as BENCH='--quick' or BENCH="--only '^(down|up)1/' --reps 3"; see docs/performance.md.
BENCH ?=
PEERS :=

.PHONY: bench
bench: build ## the data path beside direct and bare pairs, as one table; raw values in dist/bench/
	$(GO) build $(BUILDFLAGS) -o $(BIN)/ ./internal/bench/cmd/fairlead-bench
	$(BIN)/fairlead-bench $(PEERS) $(BENCH)

.PHONY: bench-peers
bench-peers: PEERS := --peers
bench-peers: bench ## the same with frp, chisel, ghostunnel, haproxy, stunnel and ssh, where they are found

.PHONY: bench-wan
bench-wan: PEERS := --wan --peers
bench-wan: bench ## the same over an emulated line of 40 ms, with and without loss: as root on Linux

.PHONY: lab
lab: build ## the programs over an emulated wide-area line: loss, black-outs, a dead line; as root on Linux
	FAIRLEAD_TEST_LAB=1 FAIRLEAD_BIN=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout 10m -v ./internal/wan
	FAIRLEAD_TEST_LAB=1 FAIRLEAD_BIN=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout 15m -v -run '^TestLab' ./internal/bench

# How long make soak loads the programs, and what else it is told: SOAK='--for 8h --tolerance 0.05'.
SOAK ?= --for 30m

.PHONY: soak
soak: build ## mixed load for 30 minutes; fails when memory, descriptors or goroutines grow
	$(GO) build $(BUILDFLAGS) -o $(BIN)/ ./internal/bench/cmd/fairlead-bench
	$(BIN)/fairlead-bench soak $(SOAK)

.PHONY: bench-go
bench-go: ## Go benchmarks of the hot pieces
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: package
package: cross ## archives of the programs with the sample configurations, and their checksums, into dist/
	@bash packaging/package.sh

.PHONY: clean
clean: ## removes what make made
	rm -rf $(BIN) dist .demo

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
