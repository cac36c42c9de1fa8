# `make demo` and `make test` need Python >= 3.11 and make; they set up a virtual environment in .venv.
# Another interpreter: make PYTHON=python3.13 test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLI := $(VENV)/.installed-cli
DEV := $(VENV)/.installed-dev
# A file's tests stay together and in their order. More processes than two would disturb the tests that measure time.
WORKERS ?= 2
# How long the fault campaigns are, and where their figures go.
TIER ?= nightly
FIGURES ?= faults-$(TIER).json
# How long each target is fuzzed, in an environment of its own: its compiled parts are in nobody else's way.
SECONDS ?= 60
FUZZ ?= .venv-fuzz

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit faults fuzz bench bench-check bench-peers sql clean

help:  ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(CLI)  ## Record conversations, kill the program, see that nothing is lost, and deliver it to a collector
	$(BIN)/sessionstore demo

test: lint types unit  ## All checks: ruff, mypy, pytest on asyncio and trio

lint: $(DEV)  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)  ## Types, of the package and of what users see of it
	$(BIN)/mypy
	$(BIN)/mypy tests/typing

unit: $(DEV)  ## The tests alone, in two processes; make unit WORKERS=0 needs one
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

faults: $(DEV)  ## Every fault of docs/reliability.md, each with its figure; TIER=push, nightly or release, FAULTS="-k kill" chooses
	$(BIN)/python -m pytest -m fault --tier $(TIER) --figures $(FIGURES) -n $(WORKERS) --dist worksteal --timeout 7200 $(FAULTS)

fuzz: $(FUZZ)/.installed  ## Fuzz importers and decoders, guided by coverage (Linux); SECONDS=600, TARGET=cursor chooses one
	$(FUZZ)/bin/python tests/fuzz/harness.py --seconds $(SECONDS) $(TARGET)

bench: $(DEV)  ## Raw sqlite3 and the store, side by side; make bench BENCH="--json docs/benchmarks/store.json" lands the figures
	$(BIN)/python -m benchmarks $(BENCH)

bench-check: $(DEV)  ## Measure again, and say what got slower than the landed figures; BENCH="--only append" checks some
	$(BIN)/python -m benchmarks check $(BENCH)

bench-peers: $(DEV)  ## The store beside other session stores and queues, each in an environment of its own; about half an hour
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks.peers $(BENCH)

sql: $(DEV)  ## Compile the hot path's SQL from the models again
	$(BIN)/python -m sessionstore.queries.statements

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) $(FUZZ) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist faults-*.json

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; try: make PYTHON=python3.13 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(CLI): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[cli,collector]'
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[cli,collector]' --group dev
	@touch $@

$(FUZZ)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv $(FUZZ)
	$(FUZZ)/bin/python -m pip install --quiet --upgrade pip
	$(FUZZ)/bin/python -m pip install --quiet --editable '.[cli,collector]' --group fuzz
	@touch $@
