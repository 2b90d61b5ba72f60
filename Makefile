# `make` lists what there is. Caches are in the user's cache folder, what is built is in bin/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE   ?= scale-to-zero:$(VERSION)
FUZZTIME ?= 30s
# What ends `make drive-edges` and `make drive-restarts`, and what they draw from; DRIVE takes more flags of theirs.
COUNT ?=
FOR   ?=
SEED  ?=
DRIVE ?=
# The cluster of `make demo`, by its context, and the command that gives its nodes an image archive.
CONTEXT ?=
LOAD    ?=
# Flags of `make bench`; bin/bench -help lists them.
BENCH ?=

# Go modules of the repository. What the tests need is kept out of what is shipped.
MODULES := . test/cluster test/chart test/gitops test/h2spec test/conformance test/browser
CLUSTER := go run -C $(CURDIR)/test/cluster .
TOOL    := go tool -modfile=$(CURDIR)/tools/go.mod

# What the end-to-end tests are told. With KUBECONFIG set they run on your cluster, and the images have to be where it
# pulls from; without Traefik there, set E2E_TRAEFIK to nothing.
E2E_CHART     ?= $(CURDIR)/config/chart
E2E_APP_CHART ?= $(CURDIR)/test/demo/chart
E2E_IMAGE     ?= scale-to-zero.test/scale-to-zero:dev
E2E_APP_IMAGE ?= scale-to-zero.test/app:dev
E2E_TRAEFIK   ?= traefik.traefik
E2E_PAUSE     ?= $(CLUSTER) pause
HELM    ?= helm
HELM3   ?= helm3
KUBECTL ?= kubectl
export E2E_CHART E2E_APP_CHART E2E_IMAGE E2E_APP_IMAGE E2E_TRAEFIK E2E_PAUSE HELM HELM3 KUBECTL

heading = @printf '\n== %s\n' "$(1)"

# $(call need,COMMAND,DEBIAN PACKAGES)
define need
	@command -v $(1) >/dev/null || { echo "$(1) is missing: installing $(2)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) >/dev/null; }
endef

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: ## Show it: a cluster (yours: CONTEXT=kind-kind), an app somebody else deployed, one label
	@DEMO_CONTEXT='$(CONTEXT)' DEMO_LOAD='$(LOAD)' go run ./test/demo

.PHONY: build
build: ## Build bin/scale-to-zero
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/scale-to-zero .

.PHONY: image
image: ## Build the container image IMAGE with docker, podman or buildah
	@for engine in docker podman buildah; do command -v $$engine >/dev/null && break || engine=; done; \
	[ -n "$$engine" ] || { echo "make image needs docker, podman or buildah"; exit 1; }; \
	$$engine build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

.PHONY: test
test: ## Everything: lint, verify, unit, api, e2e; KEEP=1 leaves the cluster up
	@for stage in lint verify unit api e2e; do $(MAKE) $$stage; done
	@printf '\n== All of it passed\n'

.PHONY: lint
lint: ## Run the linters
	$(call heading,Lint)
	@for module in $(MODULES); do echo "$$module"; \
		(cd $$module && $(TOOL) golangci-lint run --allow-serial-runners --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: fmt
fmt: ## Format all Go files
	@for module in $(MODULES); do (cd $$module && $(TOOL) golangci-lint fmt --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: generate
generate: ## Write generated code anew, and the licence header of files that lack it
	$(call need,protoc,protobuf-compiler)
	go generate ./...
	@$(MAKE) headers

.PHONY: headers
headers: ## Write the licence header of files that lack it
	@{ git grep -zL --untracked -e '^// SPDX-License-Identifier: Apache-2.0$$' -- '*.go' '*.proto' || true; } | \
		xargs -0r sed -i '1i // Copyright The scale-to-zero authors\n// SPDX-License-Identifier: Apache-2.0\n'

# What stands in the working tree, committed or not.
snapshot = git ls-files -z --cached --others --exclude-standard | xargs -0 sha256sum 2>/dev/null | sort -k 2 || true

.PHONY: verify
verify: ## Check that generated code, formatting and go.mod files are up to date
	$(call heading,Verify)
	@before=$$($(snapshot)); $(MAKE) generate; after=$$($(snapshot)); \
	if [ "$$before" != "$$after" ]; then \
		diff <(echo "$$before") <(echo "$$after") | awk '{print $$3}' | sort -u; \
		echo "make generate changed these files: commit them as they are now"; exit 1; \
	fi
	@for module in $(MODULES); do \
		(cd $$module && $(TOOL) golangci-lint fmt --diff --config $(CURDIR)/.golangci.yml ./...) || \
			{ echo "$$module is not formatted: make fmt"; exit 1; }; \
		go -C $$module mod tidy -diff || { echo "$$module/go.mod is not tidy: go -C $$module mod tidy"; exit 1; }; \
	done

.PHONY: unit
unit: ## Unit tests, with the race detector for what is shipped
	$(call heading,Unit tests)
	$(call need,gcc,gcc libc6-dev)
	@# In two steps, so that packages that cannot be listed are an error and not left out.
	packages=$$(go list ./...); go test -race -shuffle=on $$(grep -vE '/test/(api|e2e)(/|$$)' <<<"$$packages")
	go test -C test/cluster -shuffle=on ./...
	@# The charts are outside of its module, where a cached result would not notice their changes.
	go test -C test/chart -count=1 -shuffle=on ./...
	go test -C test/h2spec -shuffle=on ./...
	go test -C test/conformance -shuffle=on ./...
	$(call need,chromium,chromium)
	go test -C test/browser -shuffle=on ./...

.PHONY: api
api: ## Tests against a real API server, with the race detector for what is shipped
	$(call heading,API server tests)
	$(call need,gcc,gcc libc6-dev)
	@assets=$$($(CLUSTER) assets); export KUBEBUILDER_ASSETS=$$assets; \
	go test -C test/gitops -count=1 -timeout 15m ./... & gitops=$$!; \
	go test -race -count=1 -timeout 20m ./test/api/... && go test -C test/chart -count=1 -run '^TestServer' ./... || failed=1; \
	wait $$gitops && [ -z "$${failed:-}" ]

.PHONY: e2e
e2e: ## End-to-end tests in a cluster of our own, or in yours if KUBECONFIG is set
	$(call heading,End-to-end tests)
	@if [ -n "$${KUBECONFIG:-}" ]; then E2E_PAUSE= go test -count=1 -timeout 30m ./test/e2e/...; exit; fi; \
	if [ -z "$${KEEP:-}" ]; then trap '$(CLUSTER) down' EXIT; fi; \
	$(MAKE) cluster-up; \
	go vet ./test/e2e/...; \
	$(CLUSTER) exec go test -count=1 -timeout 30m ./test/e2e/...

.PHONY: cluster-up
cluster-up: ## Start the cluster with Traefik and cert-manager, and give it our images
	@$(CLUSTER) up
	@$(CLUSTER) helm3 version >/dev/null # builds it: `up` does without
	@$(CLUSTER) traefik
	@$(CLUSTER) cert-manager
	@$(MAKE) cluster-images

.PHONY: cluster-images
cluster-images: build
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/app ./test/app
	@$(CLUSTER) image $(E2E_IMAGE) bin/scale-to-zero.tar bin/scale-to-zero:/scale-to-zero
	@$(CLUSTER) image $(E2E_APP_IMAGE) bin/app.tar bin/app:/app
	@$(CLUSTER) load bin/scale-to-zero.tar bin/app.tar

.PHONY: cluster-down
cluster-down: ## Remove the cluster
	@$(CLUSTER) down

.PHONY: drive-edges
drive-edges: ## Look for lost requests: sleep and wake COUNT times (1000), or FOR=10m, from SEED
	@$(MAKE) drive DRIVE="edges $(drive-flags)"

.PHONY: drive-restarts
drive-restarts: ## Look for lost requests: restart all interceptors COUNT times (50), or FOR=10m, from SEED
	@$(MAKE) drive DRIVE="restarts $(drive-flags)"

drive-flags = $(COUNT:%=-count %) $(FOR:%=-for %) $(SEED:%=-seed %) $(DRIVE)

.PHONY: drive
drive:
	@$(CLUSTER) up
	@$(MAKE) cluster-images
	@image=$(E2E_IMAGE); $(CLUSTER) helm upgrade --install scale-to-zero $(E2E_CHART) -n scale-to-zero --create-namespace \
		--set image.repository=$${image%:*} --set-string image.tag=$${image##*:} --wait >/dev/null
	@go build -o bin/drive ./test/drive
	@if [ -z "$${KEEP:-}" ]; then trap '$(CLUSTER) down' EXIT; fi; $(CLUSTER) exec $(CURDIR)/bin/drive $(DRIVE) -image $(E2E_APP_IMAGE)

.PHONY: bench
bench: ## Compare with nginx, HAProxy and ReverseProxy: 5 minutes, or BENCH=-quick; fails on ratios alone
	$(call need,nginx,nginx-light)
	$(call need,haproxy,haproxy)
	$(call need,wrk,wrk)
	go build -o bin/bench ./test/bench
	bin/bench $(BENCH)

.PHONY: fuzz
fuzz: ## Fuzz everything that is fuzzed, FUZZTIME each (30s)
	@grep -rHoP --include='*_test.go' '^func \KFuzz\w+' --exclude-dir=bin . | sort | while IFS=: read -r file name; do \
		echo "$$name in $$(dirname $$file)"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$(dirname $$file); \
	done

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what is shipped
	$(TOOL) govulncheck ./...

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin
