# Everything runs from a bare Python 3.11: each target sets up .venv first, once.
#   VENV=path       use (or make) this environment instead of .venv
#   PYTHON=path     make the environment with this Python
#   PIP_FLAGS=...   extra flags for pip, such as --extra-index-url https://download.pytorch.org/whl/cpu
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
PIP_FLAGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.ttmem-installed
LAWS := $(wildcard tests/core tests/nn tests/memories tests/models)
FAST := tests/test_house.py $(wildcard tests/core tests/nn tests/tasks tests/memories)
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo test fix check bench docs
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 15

setup: $(STAMP)  ## an environment with ttmem and the versions that were tried together

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "ttmem needs Python 3.11 or newer with venv; point to one: make PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)  ## the main job: meta-train a small memory, then write, ask, and compare
	$(BIN)/ttmem demo

# Two processes with torch's default threads fight for the cores and run many times slower.
test check bench docs: export OMP_NUM_THREADS = 1

test: $(STAMP)  ## every test but gpu and slow
	$(PYTEST) -n 2

check: $(STAMP)  ## format, lint, types, layers and fast tests, in under two minutes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -n 2 -q $(FAST)

fix: $(STAMP)  ## mend format and lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## speed and memory of the training step; refuses to print a number unless the laws pass
	$(PYTEST) -n 2 -q $(LAWS)
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/titans.py

docs: $(STAMP)  ## examples, links and the README's commands
	$(PYTEST) -q tests/test_docs.py src/ttmem
