# Needs Python 3.10 to 3.13, git and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help env demo test test-fast test-slow lint format docs bench clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(VENV)/.made ## make the environment

$(VENV)/.made: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: env ## two variants of iris, trained and compared, in a repository of their own
	@bash demo/demo.sh "$(abspath $(BIN))"

test: env ## every everyday test, on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-fast: env ## the tests without TensorFlow
	$(BIN)/python -m pytest -n 2 -m "not slow and not tf"

test-slow: env ## the slow and wide tests: many kills, many processes
	$(BIN)/python -m pytest -m slow

lint: env ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: env ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env ## run what the README and the docs show
	$(BIN)/python -m pytest -n 2 tests/test_docs.py

bench: env ## measure start-up, new, steps a second, and what the guard costs
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/new.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/process.py
	$(BIN)/python benchmarks/guard.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
