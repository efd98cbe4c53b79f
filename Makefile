# Two commands: `make run` shows Cuboid at work, `make test` proves it. The rest are their parts.
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help run stop setup setup-dev check test unit fuzz bench fmt docs clean agent guest-kernel

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup ## install, start the platform, run nginx in a microVM, fetch its page
	@$(PY) -m tools.demo

stop: ## end the demo, its registry and the platform
	@$(PY) -m tools.demo --stop

setup: ## install what running needs
	@tools/setup.sh

setup-dev: ## install what tests and checks need as well
	@tools/setup.sh --dev

check: setup-dev ## ruff, mypy strict, import-linter, clippy, generated files fresh
	@$(PY) tools/check.py

test: setup-dev ## all checks and tests
	@$(PY) tools/check.py
	@$(PY) tools/test.py

unit: ## only the tests that start nothing
	@$(PY) -m pytest -q -n 2 tests/unit

fuzz: ## random input to the agent's parsers, 3 minutes each (FUZZ_SECONDS=180; Rust nightly, cargo-fuzz)
	@for target in frames mux; do mkdir -p build/fuzz/$$target; (cd guest/agent && PATH="$$HOME/.cargo/bin:$$PATH" \
	  cargo +nightly fuzz run --fuzz-dir fuzz --target-dir ../../build/cargo-fuzz $$target ../../build/fuzz/$$target -- \
	  -max_total_time=$${FUZZ_SECONDS:-180} -timeout=20 -print_final_stats=1) || exit 1; done

bench: ## measure what the README claims, into bench/results
	@tools/setup.sh --bench
	@$(PY) -m bench

agent: ## build the guest agent and its initramfs
	@tools/setup.sh

guest-kernel: ## build the minimal guest kernel (about 8 minutes on two CPUs; cached in /var/cache/cuboid)
	@tools/setup.sh --guest-kernel

fmt: ## format
	@.venv/bin/ruff format src tests bench tools && .venv/bin/ruff check --fix -q src tests bench tools
	@cd guest/agent && cargo fmt
