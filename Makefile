# The single front door. `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PLAYERS ?= 3
OUT ?= lab.json
TARGET := $(or $(CARGO_TARGET_DIR),target)
NEXTEST := cargo nextest run --locked --no-fail-fast

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: setup build ## Play: control, two relays, three players behind NATs (KEEP=1 keeps it up)
	$(TARGET)/debug/lanrage-demo $(if $(KEEP),--keep)

.PHONY: test
test: setup nextest lint build-all ## Lint and run every test, the long scenarios in a short form
	$(NEXTEST) --workspace
	LANRAGE_LAB_BACKEND=recvmmsg $(NEXTEST) -p lanrage-scenarios
	cargo test --locked --workspace --doc --quiet
	$(MAKE) instructions
	$(MAKE) loom

.PHONY: soak
soak: setup nextest build-all ## Run the long scenarios whole
	LANRAGE_SOAK=1 $(NEXTEST) --release --profile soak -p lanrage-relay
	LANRAGE_SOAK=1 $(NEXTEST) --profile soak -p lanrage-scenarios
	LANRAGE_SOAK=1 LANRAGE_LAB_BACKEND=recvmmsg $(NEXTEST) --profile soak -p lanrage-scenarios

.PHONY: loom
loom: ## Model-check the lock-free table
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom \
		cargo test --locked --release -p lanrage-relay-table --test loom --quiet

COUNT := cargo run --locked --quiet --profile instructions -p lanrage-instructions --
COUNTS := bench/instructions/counts.txt

.PHONY: instructions
instructions: ## Compare the relay's instructions a datagram with bench/instructions/counts.txt
	$(COUNT) check $(COUNTS)

.PHONY: instructions-update
instructions-update: ## Write what the relay's instructions a datagram are
	$(COUNT) update $(COUNTS)

.PHONY: lint
lint: ## Formatting, clippy, rustdoc
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet

.PHONY: lab
lab: setup build ## Leave a lab standing with PLAYERS players; its description goes to OUT
	$(TARGET)/debug/lanrage-stand up --players $(PLAYERS) --out $(OUT)

.PHONY: lab-down
lab-down: ## End the lab that OUT describes
	$(TARGET)/debug/lanrage-stand down --out $(OUT)

.PHONY: bench
bench: setup rivals bench-build ## Measure the relay against the kernel's floor, and write the book's page
	mkdir -p bench/results
	$(TARGET)/release/lanrage-bench-table > bench/results/table.json
	$(TARGET)/release/lanrage-bench run || code=$$?; $(TARGET)/release/lanrage-bench page; exit $${code:-0}

.PHONY: bench-quick
bench-quick: setup rivals bench-build ## The same in six minutes; its figures claim nothing
	$(TARGET)/release/lanrage-bench run --quick --out $(TARGET)/bench-quick.json

.PHONY: bench-build
bench-build: ## Build what the benchmark runs
	cargo build --locked --release -p lanrage-bench -p lanrage-bench-table -p lanrage-relay --bins
	cargo build --locked --release -p lanrage-relay-uring --example reflector

# Each with the build settings that serve it best: turn-server without what a UDP relay does not run,
# quilkin with its own profile for speed and this machine's instructions. One that does not build is
# absent from the results.
RIVAL := cargo install --locked --quiet --root bench/.rivals

.PHONY: rivals
rivals: bench/.rivals/bin/turn-server bench/.rivals/bin/quilkin ## Download and build whom the benchmark compares with

bench/.rivals/bin/turn-server:
	-CARGO_TARGET_DIR=$(TARGET)/rivals $(RIVAL) turn-server@4.1.5 --no-default-features --features udp

bench/.rivals/bin/quilkin:
	-RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR=$(TARGET)/rivals-native $(RIVAL) quilkin@0.10.0 --profile lto

.PHONY: docs
docs: ## Build the book into docs/book
	command -v mdbook >/dev/null || cargo install --locked mdbook
	mdbook build docs

.PHONY: build
build: ## Build the programs
	cargo build --locked --workspace --bins

# The misdelivering relay is the same program with one feature: it shares all other artifacts.
.PHONY: build-all
build-all: ## Build the programs and what only tests use
	cargo build --locked -p lanrage-relay --features misdeliver
	cp $(TARGET)/debug/lanrage-relay $(TARGET)/debug/lanrage-relay-misdeliver
	$(MAKE) build

.PHONY: setup
setup: ## Install what the machine lacks (as root, from Debian)
	bench/setup

.PHONY: nextest
nextest: ## Install the test runner if it is missing
	cargo nextest --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-nextest
