# `make demo` and `make test` need Python >= 3.11 and make; they set up a virtual environment in .venv.
# Another interpreter: make PYTHON=python3.13 test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLI := $(VENV)/.installed-cli
DEV := $(VENV)/.installed-dev
# A file's tests stay together and in their order. More processes than two would disturb the tests that measure time.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit faults bench sql clean

help:  ## Show what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

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

faults: $(DEV)  ## The long campaigns: 200 kills of writers and of senders, every syscall, thousands of power cuts
	SESSIONSTORE_SYNC_ROWS=10000 SESSIONSTORE_SYNC_KILLS=200 SESSIONSTORE_SYNC_FAULTS=full SESSIONSTORE_SYNC_CLOSES=1000 \
	SESSIONSTORE_SYNC_STALLS=100 SESSIONSTORE_OFFLINE_CONVERSATIONS=10000 SESSIONSTORE_KILL_CYCLES=200 SESSIONSTORE_KILL_POINTS=0 SESSIONSTORE_POWER_LOSS_IMAGES=5000 SESSIONSTORE_DISK_FAULTS=300 \
	SESSIONSTORE_FILE_KILLS=300 SESSIONSTORE_COPY_KILLS=200 SESSIONSTORE_FILE_KILL_POINTS=600 SESSIONSTORE_BACKUPS=200 SESSIONSTORE_BIT_FLIPS=2000 SESSIONSTORE_FORK_HISTORIES=120 \
	SESSIONSTORE_ERASURES=60 SESSIONSTORE_ERASE_KILLS=100 SESSIONSTORE_DAMAGED_FILES=2000 SESSIONSTORE_INTERRUPT_STEP=7 SESSIONSTORE_CHAT_KILLS=20 \
	SESSIONSTORE_GRAPHS=200 SESSIONSTORE_GRAPH_KILLS=10 SESSIONSTORE_ADK_EXAMPLES=100 SESSIONSTORE_CASES=1000 $(BIN)/python -m pytest tests/faults tests/integration/test_offline_day.py tests/integration/test_backup.py tests/integration/test_forks.py tests/integration/test_replace_range.py \
	tests/integration/test_chat_agent.py tests/integration/test_adapter_langgraph.py tests/integration/test_adapter_google_adk.py tests/integration/test_adapter_pydantic_ai.py -s --timeout 3600

bench: $(DEV)  ## Raw sqlite3 and the store, side by side
	$(BIN)/python -m benchmarks

sql: $(DEV)  ## Compile the hot path's SQL from the models again
	$(BIN)/python -m sessionstore.queries.statements

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

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
