# Every target sets itself up: the first call makes .venv and installs Vitrail in it, under constraints.txt.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo studio test test-long lint types reproduce bench readme clean

BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
COVERAGE := 94
# idle threads sleep instead of spinning: many times as fast where other work is on the machine
export OMP_WAIT_POLICY := PASSIVE

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make .venv and install (the other targets do it by themselves)

# torch comes first: it is the largest, and the rest must not choose another one.
$(STAMP): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "Vitrail needs Python 3.11 or newer: install it, or say where it is with make PYTHON=/path/to/python3." >&2; exit 1; }
	@echo "Setting up .venv with $(PYTHON) (once; a minute or two)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(PIP) install --constraint constraints.txt torch
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## simulate a shop, fit and compare three systems, write demo/index.html, show the studio
	@$(BIN)/vitrail demo --out demo

studio:  ## build the page of studio/ into the package (needs node 20 or newer; only where studio/ changed)
	@cd studio && npm ci --no-audit --no-fund && npm run --silent build

test: lint types  ## ruff, mypy, then every test with the coverage gate
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=html --cov-fail-under=$(COVERAGE)

test-long: $(STAMP)  ## minutes of load, faults and fuzzing: the service killed twenty times, a full disk, thousands of generated requests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long --durations=0

lint: $(STAMP)  ## ruff
	@$(BIN)/ruff check .

types: $(STAMP)  ## mypy, strict
	@$(BIN)/mypy

RECIPES ?=
reproduce: $(STAMP)  ## the recipes; heavy ones by name: make reproduce RECIPES="sasrec.beauty --write"; goes on where it was stopped
	@$(BIN)/python benchmarks/reproduce.py $(RECIPES)

bench: $(STAMP)  ## every benchmark against its goals; one alone: python benchmarks/bench_NAME.py
	@failed=0; for name in import recommend evaluate serve scale index peers; do $(BIN)/python benchmarks/bench_$$name.py || failed=1; done; exit $$failed

readme: $(STAMP)  ## write the tables of README.md anew from recipes/ and benchmarks/results/
	@$(BIN)/python tests/test_readme.py

clean:  ## remove caches, reports and the demo; .venv and runs stay
	@rm -rf demo htmlcov build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
