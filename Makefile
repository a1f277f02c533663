# friction-forwarder: the commands a contributor needs. `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("friction-forwarder needs Python 3.11 or newer; try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,fast]'
	@touch $@

install: $(BIN)/.installed ## the environment in .venv

demo: install ## the whole product on this machine for a minute: log, receiver, backend, scores
	$(BIN)/forwarder demo

test: install ## every test; those that need a program that is not here say which
	$(BIN)/python -m pytest

unit: install ## the fast tests: no processes, no sockets
	$(BIN)/python -m pytest --ignore tests/e2e

lint: install ## style, types, floors
	$(BIN)/ruff check forwarder tests
	$(BIN)/ruff format --check forwarder tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## rewrite the sources the way `lint` wants them
	$(BIN)/ruff check --fix forwarder tests
	$(BIN)/ruff format forwarder tests

bench: install ## CPU per event, rate against Fluent Bit, memory
	$(BIN)/python -m tests.bench

clean: ## remove what the targets above made
	rm -rf $(VENV) .demo dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help install demo test unit lint format bench clean
