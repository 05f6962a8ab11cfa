# make demo: everything from nothing. make help: the list. Needs Python 3.11+ and nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PY := .venv/bin/python
export NEUROFM_HOME ?= $(CURDIR)/.neurofm
export DAGSTER_HOME := $(NEUROFM_HOME)/dagster
# Small models on few cores: threads that wait for each other cost more than they give.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo full shards ui doctor test slow lint golden bench leaderboard clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile

setup: .venv/.stamp  ## the virtual environment, with the tested set of packages

.venv/.stamp: pyproject.toml constraints.txt
	@for python in python3.12 python3.11 python3.13 python3 python; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && found=$$python && break; \
	done; \
	test -n "$$found" || { echo "make: no Python 3.11 or newer on the PATH; install one (python3.12, say) and run make again."; exit 1; }; \
	test -x $(PY) || { echo "Making .venv with $$($$found --version)"; $$found -m venv .venv; }
	@echo "Installing packages into .venv; the first time takes minutes."
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[assets,control,dev]'
	@touch $@

demo: setup  ## the whole graph at size tiny, from raw recordings to a release bundle
	@$(PY) -m neurofm_assets.demo

full: setup  ## the same over every dataset that is here
	@$(PY) -m neurofm_assets.demo --full

shards: setup  ## one dataset, from raw files to shards: make shards DATASET=name
	@$(PY) -m neurofm_assets.demo --shards $(DATASET)

ui: setup  ## Dagster's pages, at http://localhost:3000
	@$(PY) -m neurofm_assets.instance
	@.venv/bin/dagster dev --host 127.0.0.1 --port 3000

doctor: setup  ## what is installed, what is here, what is broken
	@$(PY) -m neurofm_ml.doctor

test: setup  ## the default tests
	@$(PY) -m pytest -n auto --dist loadfile

slow: setup  ## the tests that take minutes
	@$(PY) -m pytest -n auto --dist loadfile -m slow

lint: setup  ## style and types
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

golden: setup  ## accept what the code gives now as the reference in tests/golden
	@$(PY) -m pytest -m "not gpu and not network" --refresh-golden -k golden

bench: setup  ## the measurements behind every speed claim
	@failed=; for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script || failed="$$failed $$script"; done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

leaderboard: setup  ## NeuroFMx, its ablations and every baseline on every task that is here; goes on where it stopped
	@$(PY) benchmarks/leaderboard.py

clean:  ## remove the virtual environment and caches; artifacts in NEUROFM_HOME stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
