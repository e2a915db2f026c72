# Everything runs in .venv, which is made again when, and only when, the content of requirements.lock has changed.
# Needed are Python 3.11 or newer, make, and a package registry. `make help` is made from the comments behind targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast coverage faults bench lint format docs site proto lock clean

SUITS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do $$p -c '$(SUITS)' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=
# Of the tests on real parts twice as many as cores: they wait more than they compute.
WORKERS ?=

UV := .cache/lock/bin/uv
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url --no-emit-find-links $(ARGS)

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with what the lock names

$(STAMP): requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo 'error: there is no Python 3.11 or newer with venv' >&2; \
	    echo 'hint: on Debian, apt-get install python3 python3-venv; or name one: make PYTHON=/path/to/python3' >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Run the whole line and show it (ARGS="--reset" starts over)
	@$(BIN)/headrace demo $(ARGS)

test: $(STAMP) ## Run the tests on the best real parts present (ARGS="-k windows")
	$(BIN)/python -m pytest -n $(or $(WORKERS),$(shell $(BIN)/python -c 'import os; print(2 * os.cpu_count())')) \
	    --dist worksteal $(ARGS)

test-fast: $(STAMP) ## Run the tests that start nothing, in a minute
	$(BIN)/python -m pytest -n $(or $(WORKERS),auto) --dist worksteal -m "not slow" $(ARGS)

coverage: $(STAMP) ## Run the same with coverage, and show it by folder
	$(BIN)/python -m pytest -n $(or $(WORKERS),auto) --dist worksteal -m "not slow" --cov --cov-report= $(ARGS); \
	    ended=$$?; $(BIN)/python tests/coverage_by_folder.py && exit $$ended

faults: $(STAMP) ## Disturb the whole line and recount it (ARGS="--minutes 15 --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

bench: $(STAMP) ## Measure side by side (ARGS="tumbling sink")
	$(BIN)/python -m bench $(ARGS)

lint: $(STAMP) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Correct style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## Make docs/pipeline.md again from the types
	$(BIN)/python -m headrace.pipeline.reference > docs/pipeline.md.new && mv docs/pipeline.md.new docs/pipeline.md

# In a folder of its own, as it keeps house in .cache beside its settings, and would clean ours.
site: $(STAMP) ## Make site/ from docs/, to be opened at site/index.html
	@rm -rf .cache/site site && mkdir -p .cache/site && cp -r zensical.toml docs .cache/site
	@cd .cache/site && $(CURDIR)/$(BIN)/python -m zensical build --strict
	@mv .cache/site/site site && echo 'the site is at site/index.html'

proto: $(STAMP) ## Make the gate's code from viewer/perspective.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. viewer/perspective.proto

# requirements.lock is all that is needed here; the image takes only what the services run on, and what builds them.
lock: $(UV) ## Make the locks from pyproject.toml (ARGS="--upgrade" takes newer versions)
	$(COMPILE) --group dev pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml -c requirements.lock -o requirements-image.lock
	$(COMPILE) --group build -c requirements.lock -o requirements-build.lock

$(UV): Makefile
	$(PYTHON) -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	@touch $@

clean: ## Remove what was made: .venv, caches, the demo's data
	rm -rf $(VENV) .headrace .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis dist site report.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
