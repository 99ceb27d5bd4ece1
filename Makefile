# Needs Python 3.10 to 3.13, git and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help env estimator-env demo matrix matrix-env test test-fast test-all test-alone test-estimators nightly fuzz fuzz-env mutants mutant-env lint format package docs source-files bench clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(VENV)/.made ## make the environment

$(VENV)/.made: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: env ## two variants of iris, trained and compared, in a repository of their own
	@bash demo/demo.sh "$(abspath $(BIN))"

# docs/testing.md says what runs where and why.
JOBS ?= 2
PYTEST := -m pytest -n $(JOBS) --dist worksteal

test: env ## every everyday test, on two cores
	$(BIN)/python $(PYTEST) -m "not slow and not wide and not estimators and not nightly"

test-fast: env ## the tests without TensorFlow
	$(BIN)/python $(PYTEST) -m "not slow and not wide and not nightly and not tf"

test-all: env estimator-env ## all tests that can run side by side, slow and wide ones and the Estimators' too
	$(BIN)/python $(PYTEST) -m "not alone and not nightly"

test-alone: env estimator-env ## the tests beside which nothing may run: kills, measured time, sixteen at once
	$(BIN)/python -m pytest -m "alone and not nightly"

# Estimators live in TensorFlow 2.14 and 2.15, which have Python 3.9 to 3.11.
ESTIMATOR_PYTHON ?= python3.11
ESTIMATOR_TENSORFLOW ?= tensorflow-cpu==2.15.*

test-estimators: env estimator-env ## the tests with TensorFlow 2.15's Estimators, in a separate environment
	$(BIN)/python $(PYTEST) -m "estimators and not nightly"

estimator-env: .venv-tf215/.made

.venv-tf215/.made: Makefile
	$(ESTIMATOR_PYTHON) -m venv .venv-tf215
	.venv-tf215/bin/python -m pip install --quiet --disable-pip-version-check '$(ESTIMATOR_TENSORFLOW)' 'pydantic>=2.9'
	@touch $@

# PYTHON:TENSORFLOW, the newest patch of each.
MATRIX ?= python3.10:2.16 python3.12:2.18 python3.13:2.21
MATRIX_TESTS ?= tf and not slow and not wide and not nightly
MATRIX_FOLDER = .matrix/$$(echo $$pair | tr ':/' '--')

matrix: matrix-env ## the tests of the worker and the guard with other versions: make matrix MATRIX="python3.10:2.16"
	@set -e; for pair in $(MATRIX); do \
	  echo "TensorFlow $${pair#*:} with $${pair%%:*}"; \
	  $(MATRIX_FOLDER)/bin/python $(PYTEST) -m "$(MATRIX_TESTS)" tests/train tests/guard; \
	done

matrix-env:
	@set -e; for pair in $(MATRIX); do folder=$(MATRIX_FOLDER); \
	  if [ -e $$folder/.made ] && ! [ pyproject.toml -nt $$folder/.made ]; then continue; fi; \
	  $${pair%%:*} -m venv $$folder; \
	  $$folder/bin/python -m pip install --quiet --disable-pip-version-check "tensorflow==$${pair#*:}.*" --editable '.[dev]'; \
	  touch $$folder/.made; \
	done

# atheris has wheels for Python 3.11 to 3.13. Each target of tests/fuzz/targets.py gets an equal share of the seconds.
FUZZ_PYTHON ?= python3.11
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=

fuzz: fuzz-env ## hostile versions of real files through every parser, with coverage, for FUZZ_SECONDS in all
	.venv-fuzz/bin/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED)) $(FUZZ_TARGETS)

fuzz-env: .venv-fuzz/.made

.venv-fuzz/.made: Makefile pyproject.toml
	$(FUZZ_PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check 'atheris==3.0.0' --editable .
	@touch $@

# Property tests draw from PROPERTY_SEED, which pytest prints; unset, a new one each time.
nightly: env estimator-env ## the widest and the longest: every test, 500 examples a property, the whole matrix, fuzzing, benchmarks
	$(BIN)/python $(PYTEST) --hypothesis-profile=nightly -m "not alone"
	$(BIN)/python -m pytest --hypothesis-profile=nightly -m alone
	$(MAKE) matrix MATRIX_TESTS="tf and not slow"
	$(MAKE) fuzz
	EXPMGR_ESTIMATOR_PYTHON="$(abspath .venv-tf215/bin/python)" $(MAKE) bench
	$(MAKE) mutants

# A new sample each time, whose seed is printed. One survivor again: make mutants MUTANT=FILE:OPERATOR:NUMBER.
MUTANTS ?= 200
MUTANT_MINUTES ?= 80

mutants: mutant-env ## plant mutants where the product's promises are kept, and count how many the tests notice
	.venv-mutants/bin/python tests/mutants/run.py --jobs $(JOBS) --count $(MUTANTS) --minutes $(MUTANT_MINUTES) \
	  $(if $(MUTANT_SEED),--seed $(MUTANT_SEED)) $(if $(MUTANT),--mutant $(MUTANT))

mutant-env: .venv-mutants/.made

# It sees all of $(VENV). The name begins with a0: coverage's own file, which imports our plugin, is called a1_coverage.pth.
.venv-mutants/.made: $(VENV)/.made Makefile
	$(BIN)/python -m venv .venv-mutants
	.venv-mutants/bin/python -m pip install --quiet --disable-pip-version-check 'cosmic-ray==8.*' 'coverage>=7.10'
	@printf '%s\n' "$(abspath tests/mutants)" \
	  "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	  >"$$(.venv-mutants/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/a0_expmgr.pth"
	@touch $@

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
	rm -rf $(VENV) .venv-tf215 .venv-fuzz .fuzz .venv-mutants .mutants .matrix .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
