# `make help` lists what there is. Everything sets itself up; nothing needs root, Docker or a configuration file.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv/bin
ARGS ?=
export UV := $(or $(shell command -v uv),$(CURDIR)/.cache/uv/bin/uv)

.PHONY: help setup demo demo-fabric test check bench soak schemas

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.ready: pyproject.toml uv.lock scripts/setup.sh
	@scripts/setup.sh
	@touch $@

setup: .venv/.ready ## the environment only (.venv from uv.lock)

demo: .venv/.ready ## the main job on embedded parts; ARGS="--no-serve --report FILE"
	@$(VENV)/flexrelay demo $(ARGS)

demo-fabric: .venv/.ready ## the same on a native Hyperledger Fabric network of its organisations, same numbers
	@$(VENV)/flexrelay demo --ledger fabric $(ARGS)

test: .venv/.ready ## everything the tests need, then all tests
	@scripts/peers.sh
	@$(VENV)/pytest -m "not soak" $(ARGS)

check: .venv/.ready ## ruff, mypy strict, import-linter
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports

bench: .venv/.ready ## prints figures and ratios; ARGS="NAME --json FILE"
	@$(VENV)/flexrelay bench $(ARGS)

soak: .venv/.ready ## the full counts of kills and fuzzing
	@scripts/peers.sh
	@scripts/kubernetes.sh server
	@FLEXRELAY_SOAK=1 $(VENV)/pytest -m soak --timeout 3600 $(ARGS)

schemas: .venv/.ready ## export the JSON Schemas and the JSON-LD context again
	@$(VENV)/python -m flexrelay_schemas.export
