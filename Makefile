# Two commands set up everything on a machine that has only Python 3.11 or newer:
#   make demo [STUDY=folder]   install into .venv, run one study through a whole node
#   make test                  install into .venv, run every check and every test
# A second run installs nothing: the stamps below depend on the files that say what to install.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLS_FROM := pyproject.toml constraints.txt sam2.txt
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$p"; break; fi; done)

.PHONY: help
help:
	@sed -n 's/^#   //p' Makefile
	echo "make install | dev | lint | format | docs | benchmark | clean"

# The virtual environment. setuptools and wheel are named because a venv of Python 3.12 or newer
# has neither, and both sam2 and this project are built with what lies in the venv.
$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then
		echo "Python 3.11 or newer was not found. Install it, or name it: make PYTHON=/path/to/python3.11" >&2
		exit 1
	fi
	$(PYTHON) -m venv $(VENV) || {
		echo "This Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
		rm -rf $(VENV)
		exit 1
	}

$(VENV)/.installed: $(INSTALLS_FROM) | $(BIN)/python
	@echo "Installing the node into $(VENV) (once; some minutes on a fresh machine)"
	$(PIP) install --quiet --constraint constraints.txt setuptools wheel
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation \
		--config-settings editable_mode=compat --editable '.[video]'
	SAM2_BUILD_CUDA=0 $(PIP) install --quiet --no-deps --no-build-isolation --require-hashes \
		--requirement sam2.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the tools for checks and tests into $(VENV)"
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation \
		--config-settings editable_mode=compat --editable '.[dev,docs]'
	touch $@

.PHONY: install dev
install: $(VENV)/.installed
	@:
dev: $(VENV)/.installed-dev
	@:

.PHONY: demo
demo: $(VENV)/.installed
	@$(BIN)/unibiomed-node demo $(if $(STUDY),"$(STUDY)")

# The checks run beside the tests, which wait a good part of their time; what they find comes last.
.PHONY: test
test: $(VENV)/.installed-dev
	@mkdir -p build
	$(MAKE) --no-print-directory lint >build/lint.log 2>&1 & lint=$$!
	bash tests/outside_peers.sh
	failed=0
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile \
		--no-loadscope-reorder || failed=$$?
	wait "$$lint" || { echo "Found by make lint:"; cat build/lint.log; failed=1; } >&2
	exit "$$failed"

.PHONY: lint
lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet . || {
		echo "The files above are not formatted; mend with: make format" >&2; exit 1; }
	$(BIN)/mypy --no-error-summary
	floors=$$($(BIN)/lint-imports --no-logo) || { echo "$$floors" >&2; exit 1; }
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

.PHONY: format
format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

.PHONY: docs
docs: $(VENV)/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: benchmark
benchmark: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/receive.py

.PHONY: clean
clean:
	@rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
