# Needs Python 3.10 to 3.13, git and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help env demo matrix test test-fast test-slow test-wide test-estimators lint format package docs source-files bench clean

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
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not wide and not estimators"

test-fast: env ## the tests without TensorFlow
	$(BIN)/python -m pytest -n 2 -m "not slow and not wide and not tf"

test-slow: env ## the slow tests, one at a time: many kills, many processes
	$(BIN)/python -m pytest -m slow

test-wide: env ## the wide tests: each kind of model, each store, each trick that somebody may try
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "wide and not slow"

# Estimators live in TensorFlow 2.14 and 2.15, which have Python 3.9 to 3.11.
ESTIMATOR_PYTHON ?= python3.11
ESTIMATOR_TENSORFLOW ?= tensorflow-cpu==2.15.*

test-estimators: env .venv-tf215/.made ## the tests with TensorFlow 2.15's Estimators, in an environment of their own
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/estimators

.venv-tf215/.made: Makefile
	$(ESTIMATOR_PYTHON) -m venv .venv-tf215
	.venv-tf215/bin/python -m pip install --quiet --disable-pip-version-check '$(ESTIMATOR_TENSORFLOW)' 'pydantic>=2.9'
	@touch $@

# PYTHON:TENSORFLOW, the newest patch of each.
MATRIX ?= python3.10:2.16 python3.12:2.18 python3.13:2.21

matrix: ## the tests of the worker and the guard with other versions: make matrix MATRIX="python3.10:2.16"
	@set -e; for pair in $(MATRIX); do \
	  folder=.matrix/$$(echo $$pair | tr ':/' '--'); \
	  echo "TensorFlow $${pair#*:} with $${pair%%:*}"; \
	  $${pair%%:*} -m venv $$folder; \
	  $$folder/bin/python -m pip install --quiet --disable-pip-version-check "tensorflow==$${pair#*:}.*" --editable '.[dev]'; \
	  $$folder/bin/python -m pytest -n 2 --dist worksteal -m "tf and not slow" tests/train tests/guard; \
	done

lint: env ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: env ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

package: env ## build the sdist and the wheel into dist/, and see that they are complete
	rm -rf dist
	$(BIN)/python -m build --quiet --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tests/package.py dist

docs: env ## run what the README and the docs show
	$(BIN)/python -m pytest -n 2 tests/test_docs.py

source-files: env ## write the tables of folders and files in docs/ from the modules' docstrings
	$(BIN)/python docs/source_files.py

bench: env ## measure commands, logs, reviews, steps a second, and what the guard costs
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/new.py
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/log.py
	$(BIN)/python benchmarks/reviews.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/process.py
	$(BIN)/python benchmarks/guard.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .venv-tf215 .matrix .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
