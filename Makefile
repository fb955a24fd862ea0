# The commands of this repository. `make` alone prints them.
#
# Real servers come from `fixtures/servers/fetch` and live in a cache outside the checkout ($DBMOVE_CACHE, by
# default ~/.cache/dbmove). Nothing here needs more than Debian 12 and Rust; what is missing is installed with apt
# when run as root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DBMOVE_CACHE ?= $(HOME)/.cache/dbmove
export DBMOVE_CACHE

# Each test that needs a server runs one; two at a time is what two cores carry.
TEST_THREADS ?= 2
# Arguments for the demo (make demo ARGS=--keep) and for cargo test (make test ARGS='--test servers').
ARGS ?=
CARGO_DENY_VERSION := 0.20.2

.PHONY: help demo test lint bench soak fetch clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Move a live MySQL 5.5 to a new one, here (ARGS=--keep: it stays)
	@fixtures/servers/fetch --quiet mysql-5.5.34 mysql-9.7 haproxy-2.6
	cargo build --release --locked
	"$${CARGO_TARGET_DIR:-target}/release/dbmove" demo $(ARGS)

test: ## Run every test on real servers; prints what was skipped, and why
	@fixtures/servers/fetch || echo 'make test: WARNING: not every server could be fetched; their tests will be skipped' >&2
	@mkdir -p target
	@: > target/skips.log
	@status=0; \
	DBMOVE_SKIP_LOG="$$PWD/target/skips.log" cargo test --locked --no-fail-fast $(ARGS) -- --test-threads $(TEST_THREADS) || status=$$?; \
	echo; echo "skips: $$(wc -l < target/skips.log)"; sed 's/^/  /' target/skips.log; \
	exit $$status

lint: ## Formatting, clippy as errors, licences and advisories
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@[[ "$$("$(DBMOVE_CACHE)/tools/bin/cargo-deny" --version 2>/dev/null)" == "cargo-deny $(CARGO_DENY_VERSION)" ]] || \
		cargo install --locked --root "$(DBMOVE_CACHE)/tools" --version $(CARGO_DENY_VERSION) cargo-deny
	"$(DBMOVE_CACHE)/tools/bin/cargo-deny" --all-features check licenses bans sources
	@if "$(DBMOVE_CACHE)/tools/bin/cargo-deny" --all-features fetch db; then \
		"$(DBMOVE_CACHE)/tools/bin/cargo-deny" --all-features check --disable-fetch advisories; \
	else \
		echo 'make lint: WARNING: the advisory database could not be fetched: advisories were NOT checked' >&2; \
	fi

bench: ## Measure against others in the same run; writes docs/benchmarks.md
	@fixtures/servers/fetch --quiet
	DBMOVE_BENCH_RECORD=1 cargo bench --locked $(ARGS)

# What a soak measures by the clock runs alone at its end; what only counts shares the two cores before that.
SOAK_COUNTED := crashes engine memory many_tables model random way_back
SOAK_TIMED := haproxy nights replay write_gap

soak: ## The tests that take long, over two hours of them; see target/soak/
	@fixtures/servers/fetch --quiet
	@mkdir -p target/soak
	@export DBMOVE_SOAK=1 DBMOVE_MANY_TABLES=4800; \
	run() { cargo test --locked --release --no-fail-fast "$${@:2}" $(ARGS) -- --test-threads 1 --nocapture 2>&1 | tee "target/soak/$$1.log"; }; \
	status=0; \
	run counted $(SOAK_COUNTED:%=--test %) & counted=$$!; \
	trap 'kill "$$counted" 2>/dev/null || true' EXIT; \
	run corruption --test corruption || status=$$?; \
	wait "$$counted" || status=$$?; \
	run timed $(SOAK_TIMED:%=--test %) || status=$$?; \
	echo; grep '^test result' target/soak/{corruption,counted,timed}.log; \
	exit $$status

fetch: ## Get every server into the cache
	@fixtures/servers/fetch

clean: ## Remove what was built here; the cache of servers stays
	cargo clean
