# friction-forwarder: the commands a contributor needs. `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
IMAGE  ?= friction-forwarder
LOCK   := uv pip compile -q --universal --generate-hashes --no-header --python-version 3.13 --upgrade
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' forwarder/__init__.py)

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

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
	$(BIN)/ruff check forwarder tests kind
	$(BIN)/ruff format --check forwarder tests kind
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## rewrite the sources the way `lint` wants them
	$(BIN)/ruff check --fix forwarder tests kind
	$(BIN)/ruff format forwarder tests kind

e2e-parts: ## a Kubernetes control plane for the end-to-end tests; needs Go, skips what is built already
	tests/e2e/parts/build.sh

kafka-parts: ## Apache Kafka for its end-to-end tests; needs Maven, and Java 17 to run it
	mvn -q -B -f tests/e2e/parts/kafka dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/tests/e2e/parts/bin/kafka/libs

image: ## both container images, with docker
	docker build --target receiver --tag $(IMAGE):$(VERSION) --build-arg VERSION=$(VERSION) .
	docker build --target sidecar --tag $(IMAGE)-sidecar:$(VERSION) --build-arg VERSION=$(VERSION) .

image-lock: ## pin the images' Python packages anew; needs uv
	$(LOCK) --extra fast --extra certs --extra feed --extra kafka --extra notify --extra postgres pyproject.toml -o image/receiver.txt
	$(LOCK) --extra fast --extra sidecar pyproject.toml -o image/sidecar.txt

kind-up: ## a kind cluster with everything in it; needs docker, kind and kubectl
kind-test: ## the scenario played there in six ways, its events compared exactly
kind-down: ## the end of that cluster
kind-up kind-test kind-down: install
	$(BIN)/python -m kind.run $(@:kind-%=%)

bench: install ## CPU per event, rate against Fluent Bit, memory
	$(BIN)/python -m tests.bench

fuzz: install ## the fast path against the full decode on millions of hostile lines (FUZZ_LINES, FUZZ_SEED)
	FUZZ_LINES=$${FUZZ_LINES:-3000000} $(BIN)/python -m pytest -q -s tests/detection/test_screen_fuzz.py -k hide

clean: ## remove what the targets above made
	rm -rf $(VENV) .demo dist build tests/e2e/parts/bin .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help install demo test unit lint format e2e-parts kafka-parts image image-lock kind-up kind-test kind-down bench fuzz clean
