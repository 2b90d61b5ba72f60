# `make` lists the targets. Caches are in the user's cache folder; build results are in bin/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE   ?= scale-to-zero:$(VERSION)
FUZZTIME ?= 30s
# When `make drive-edges` and `make drive-restarts` end, and their random seed; DRIVE takes further flags. FOR also repeats `make memory`.
COUNT ?=
FOR   ?=
SEED  ?=
DRIVE ?=
# With CERTS=45s, the certificates of interceptors, controllers and KEDA live that long in `make drive-edges` and `make drive-restarts`. They
# are renewed after two thirds of it.
CERTS ?=
# With NODES=3, the cluster that a target boots has that many nodes, and the drivers run on it with an interceptor on each. Then DRAIN=2m
# drains a node and LOSE=3m loses one, that often on average. A cluster that is up keeps its nodes.
NODES ?=
DRAIN ?=
LOSE  ?=
# The context of the cluster for `make demo`, and the command that loads an image archive into its nodes.
CONTEXT ?=
LOAD    ?=
# Flags for `make bench` and `make scale`; bin/bench -help and bin/scale -help list them.
BENCH ?=
SCALE ?=

# The repository's Go modules. They keep the tests' dependencies out of the product.
MODULES := . test/cluster test/cluster/netpol test/chart test/gitops test/h2spec test/conformance test/browser
CLUSTER := go run -C $(CURDIR)/test/cluster .
TOOL    := go tool -modfile=$(CURDIR)/tools/go.mod

# Settings of the end-to-end tests. With KUBECONFIG set they run on your cluster, which must be able to find the two images;
# if it has no Traefik, set E2E_TRAEFIK to nothing.
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
demo: ## See it work, in a new cluster or in yours (CONTEXT=kind-kind)
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
test: ## Everything: lint, verify, unit, memory, fuzz-short, api, e2e, vulncheck; KEEP=1 keeps the cluster
	@for stage in lint verify unit memory fuzz-short api e2e vulncheck-online; do $(MAKE) $$stage; done
	@printf '\n== Everything passed\n'

.PHONY: lint
lint: ## Run the linters
	$(call heading,Lint)
	@for module in $(MODULES); do echo "$$module"; \
		(cd $$module && $(TOOL) golangci-lint run --allow-serial-runners --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: fmt
fmt: ## Format all Go files
	@for module in $(MODULES); do (cd $$module && $(TOOL) golangci-lint fmt --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: generate
generate: ## Regenerate code, and add missing licence headers
	$(call need,protoc,protobuf-compiler)
	go generate ./...
	@$(MAKE) headers

.PHONY: headers
headers: ## Add missing licence headers
	@{ git grep -zL --untracked -e '^// SPDX-License-Identifier: Apache-2.0$$' -- '*.go' '*.proto' || true; } | \
		xargs -0r sed -i '1i // Copyright The scale-to-zero authors\n// SPDX-License-Identifier: Apache-2.0\n'

# Checksums of the working tree, committed or not.
snapshot = git ls-files -z --cached --others --exclude-standard | xargs -0 sha256sum 2>/dev/null | sort -k 2 || true

.PHONY: verify
verify: ## Check that generated code, formatting and go.mod files are up to date
	$(call heading,Verify)
	@before=$$($(snapshot)); $(MAKE) generate; after=$$($(snapshot)); \
	if [ "$$before" != "$$after" ]; then \
		diff <(echo "$$before") <(echo "$$after") | awk '{print $$3}' | sort -u; \
		echo "make generate changed these files: commit the changes"; exit 1; \
	fi
	@for module in $(MODULES); do \
		(cd $$module && $(TOOL) golangci-lint fmt --diff --config $(CURDIR)/.golangci.yml ./...) || \
			{ echo "$$module is not formatted: make fmt"; exit 1; }; \
		go -C $$module mod tidy -diff || { echo "$$module/go.mod is not tidy: go -C $$module mod tidy"; exit 1; }; \
	done

.PHONY: unit
unit: ## Unit tests, with the race detector for the product
	$(call heading,Unit tests)
	$(call need,gcc,gcc libc6-dev)
	@# In two steps, so that a package that cannot be listed is an error and not left out.
	packages=$$(go list ./...); go test -race -timeout 20m -shuffle=on $$(grep -vE '/test/(api|e2e|memory)(/|$$)' <<<"$$packages")
	go test -C test/cluster -shuffle=on ./...
	go test -C test/cluster/netpol -shuffle=on ./...
	@# The charts are outside this module: a cached result would not notice changes to them.
	go test -C test/chart -count=1 -shuffle=on ./...
	go test -C test/h2spec -shuffle=on ./...
	go test -C test/conformance -shuffle=on ./...
	$(call need,chromium,chromium)
	go test -C test/browser -shuffle=on ./...

.PHONY: memory
memory: ## Attack the memory of one interceptor in a cgroup with the chart's limit; FOR=10m repeats each attack
	$(call heading,Memory attacks)
	go test -count=1 -timeout 3h -v -run '^TestAttacks$$' ./test/memory/... $(if $(FOR),-args -attack $(FOR))

.PHONY: api
api: ## Tests against a real API server, with the race detector for the product
	$(call heading,API server tests)
	$(call need,gcc,gcc libc6-dev)
	@assets=$$($(CLUSTER) assets); export KUBEBUILDER_ASSETS=$$assets; \
	go test -C test/gitops -count=1 -timeout 15m ./... & gitops=$$!; \
	go test -race -count=1 -timeout 20m ./test/api/... && go test -C test/chart -count=1 -run '^TestServer' ./... || failed=1; \
	wait $$gitops && [ -z "$${failed:-}" ]

.PHONY: e2e
e2e: ## End-to-end tests in a new cluster, or in yours if KUBECONFIG is set
	$(call heading,End-to-end tests)
	@if [ -n "$${KUBECONFIG:-}" ]; then \
		E2E_PAUSE= $(e2e); \
		echo "Not tried: NetworkPolicies, as it is not known whether your cluster enforces them; E2E_NETWORK_POLICIES=1 tries them"; \
		echo "Not compared: rights with requests, as your cluster's audit log is not known"; \
		exit; \
	fi; \
	if [ -z "$${KEEP:-}" ]; then trap '$(CLUSTER) down' EXIT; fi; \
	$(MAKE) cluster-up; \
	$(CLUSTER) network-policies --off; \
	$(CLUSTER) exec bash -c ': > "$$SCALE_TO_ZERO_AUDIT_LOG"'; \
	go vet ./test/e2e ./test/rights; \
	$(CLUSTER) exec $(e2e); \
	$(CLUSTER) network-policies; \
	$(CLUSTER) exec env E2E_NETWORK_POLICIES=1 $(e2e) -run '^TestNetworkPolicies$$'; \
	$(CLUSTER) exec go test -count=1 ./test/rights

# Tests wait for seconds that apps sleep and start, more than they compute: four at a time keep two cores busy.
e2e = go test -count=1 -timeout 45m -parallel 4 ./test/e2e

.PHONY: cluster-up
cluster-up: ## Start the cluster with Traefik and cert-manager, and load our images
	@$(CLUSTER) up $(NODES:%=--nodes %)
	@$(CLUSTER) helm3 version >/dev/null # builds it; `up` does not need it
	@$(CLUSTER) traefik
	@$(CLUSTER) cert-manager
	@$(MAKE) cluster-images

.PHONY: image-archives
image-archives: build ## Build bin/scale-to-zero.tar and bin/app.tar, the images of the end-to-end tests, without an engine
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/app ./test/app
	@$(CLUSTER) image $(E2E_IMAGE) bin/scale-to-zero.tar bin/scale-to-zero:/scale-to-zero
	@$(CLUSTER) image $(E2E_APP_IMAGE) bin/app.tar bin/app:/app

.PHONY: cluster-images
cluster-images: image-archives
	@$(CLUSTER) load bin/scale-to-zero.tar bin/app.tar

.PHONY: cluster-down
cluster-down: ## Remove the cluster
	@$(CLUSTER) down

.PHONY: drive-edges
drive-edges: ## Look for lost requests: sleep and wake COUNT times (1000), or FOR=10m, with SEED
	@$(MAKE) drive DRIVE="edges $(drive-flags)"

.PHONY: drive-restarts
drive-restarts: ## Look for lost requests: restart all interceptors COUNT times (50), or FOR=10m, with SEED
	@$(MAKE) drive DRIVE="restarts $(drive-flags)"

drive-flags = $(COUNT:%=-count %) $(FOR:%=-for %) $(SEED:%=-seed %) $(DRAIN:%=-drain-every %) \
	$(LOSE:%=-lose-node-every % -stop-node '$(CLUSTER) node stop' -start-node '$(CLUSTER) node start') $(DRIVE)

.PHONY: drive
drive:
	@$(CLUSTER) up $(NODES:%=--nodes %)
	@$(MAKE) cluster-images
	@image=$(E2E_IMAGE); $(CLUSTER) helm upgrade --install scale-to-zero $(E2E_CHART) -n scale-to-zero --create-namespace \
		--set image.repository=$${image%:*} --set-string image.tag=$${image##*:} --wait >/dev/null \
		$(NODES:%=--set interceptor.replicas=%) \
		$(CERTS:%=--set 'controller.extraEnv[0].name=SCALE_TO_ZERO_INTERNAL_CERT_LIFE' --set 'controller.extraEnv[0].value=%')
	@go build -o bin/drive ./test/drive
	@if [ -z "$${KEEP:-}" ]; then trap '$(CLUSTER) down' EXIT; fi; $(CLUSTER) exec $(CURDIR)/bin/drive $(DRIVE) -image $(E2E_APP_IMAGE)

.PHONY: bench
bench: ## Compare with nginx, HAProxy and ReverseProxy (5 minutes, or BENCH=-quick); fails only on ratios
	$(call need,nginx,nginx-light)
	$(call need,haproxy,haproxy)
	$(call need,wrk,wrk)
	go build -o bin/bench ./test/bench
	bin/bench $(BENCH)

.PHONY: scale
scale: ## Measure with 100, 1,000 and 10,000 apps (25 minutes, or SCALE=-quick); fails only on ratios
	@$(MAKE) image-archives
	@go build -C test/cluster -o $(CURDIR)/bin/cluster .
	@go build -o bin/scale ./test/scale
	bin/scale $(SCALE)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s)
	@# Before 1.27, Go sometimes fails a target whose time is over, without a failing input (go.dev/issue/75804): such a target runs again.
	@grep -rHoP --include='*_test.go' '^func \KFuzz\w+' --exclude-dir=bin . | sort | while IFS=: read -r file name; do \
		echo "$$name in $$(dirname $$file)"; \
		for try in 1 2 3; do \
			report=$$(go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$(dirname $$file) 2>&1) && continue 2; \
			echo "$$report"; \
			grep -q 'context deadline exceeded' <<<"$$report" && ! grep -q 'Failing input' <<<"$$report" || exit 1; \
		done; \
		exit 1; \
	done

.PHONY: fuzz-short
fuzz-short: ## Run every fuzz target for 10s
	$(call heading,Fuzzing)
	@$(MAKE) fuzz FUZZTIME=10s

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in the product
	$(TOOL) govulncheck ./...

# For `make test`, which must not depend on a database that may be out of reach.
.PHONY: vulncheck-online
vulncheck-online:
	$(call heading,Known vulnerabilities)
	@failed=; report=$$($(TOOL) govulncheck ./... 2>&1) || failed=1; \
	if [ -n "$$failed" ] && grep -q 'fetching vulnerabilities' <<<"$$report"; then \
		echo "Not checked: the vulnerability database cannot be reached"; \
	else \
		echo "$$report"; [ -z "$$failed" ]; \
	fi

.PHONY: clean
clean: ## Remove build results
	rm -rf bin
