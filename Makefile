# The commands of everyday. Each installs what it needs first (see .ci/setup).

export PATH := $(HOME)/.cargo/bin:$(PATH)
# Most tests wait for servers more than they compute.
export RUST_TEST_THREADS ?= 8
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test test-matrix chaos simulate check bench build setup fmt clippy purity doc deny
.DEFAULT_GOAL := build

demo: setup ## migrate twelve databases on three servers, and watch
	cargo build --locked --workspace --bin confiture --bin demo
	@$(TARGET)/debug/demo

test: setup ## every test, against servers that it starts itself
	cargo test --workspace --locked

MAJORS ?= 13 14 15 16 17 18
test-matrix: ## MAJORS="13 18" [SUITES="ddl indexes"]: on servers of other majors, which are fetched
	@.ci/setup matrix
	@.ci/matrix $(MAJORS)

chaos: setup ## ROUNDS=1000 [SEED=42]: applications, competing runs and a fleet under random faults
	CHAOS_ROUNDS=$(ROUNDS) CHAOS_SEED=$(SEED) cargo test --package tests --test chaos --locked

simulate: setup ## SEEDS=1000000 [FROM=0]: the rollouts of so many random fleets, without servers
	SIMULATION_SEEDS=$(or $(SEEDS),100000) SIMULATION_FROM=$(or $(FROM),0) \
		cargo test --package shared --lib --release --locked every_rollout_ends

bench: setup ## measure against plain PostgreSQL
	cargo build --release --locked --workspace --bin confiture --bin bench
	@$(TARGET)/release/bench

build: setup ## the program: target/release/confiture
	cargo build --release --locked --package confiture

check: ## everything that needs no server
	@.ci/setup check
	@$(MAKE) --no-print-directory fmt clippy purity doc deny

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace --all-targets --locked --features confiture/planted-bugs -- -D warnings

purity:
	.ci/purity

# The pages are for those who work on the code: private items are shown, so links to them are good links.
doc:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" \
		cargo doc --workspace --no-deps --document-private-items --locked --quiet

deny:
	.ci/deny

setup:
	@.ci/setup
