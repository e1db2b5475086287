# `make evolve` and `make test` set up whatever they need: a virtual environment with the versions
# of constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help evolve test test-slow bench-quick lint types layers format clean

help:
	@echo "make evolve      run the quickstart: real training, a few minutes without a GPU"
	@echo "make test        run the tests"
	@echo "make test-slow   run all tests, also those that take minutes"
	@echo "make bench-quick the quickstart's search against full training, a quarter of an hour"
	@echo "make lint types layers   check style, types and imports"

evolve: $(VENV)/quickstart.stamp
	$(BIN)/coralx evolve configs/quickstart.yaml

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m "slow or not slow"

bench-quick: $(VENV)/quickstart.stamp
	$(BIN)/python benchmarks/quick.py

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

layers: $(VENV)/dev.stamp
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/quickstart.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing CoralX with the quickstart's model and data into $(VENV) (a minute or two)"
	$(INSTALL) -e '.[quickstart]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing CoralX with everything its tests need into $(VENV) (a minute or two)"
	$(INSTALL) -e '.[quickstart,dev]'
	@touch $@ $(VENV)/quickstart.stamp
