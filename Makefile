# jsc: `make` prints what there is. Both `make demo` and `make test` set everything up on a fresh
# machine (Python >= 3.10, a C++ compiler) and are quick the second time.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
KERNEL_SOURCES := $(wildcard src/jsc/_kernels/*.pyx src/jsc/_kernels/*.pxd src/jsc/_kernels/native/*.h)
# Threads that wait in sleep: where cores are shared, waiting in a loop costs minutes.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest

# For how long, and from which seed, `make fuzz` and `make mutate` try new cases.
SECONDS ?= 300
SEED ?= 0

.PHONY: help demo test test-slow test-data test-debug fuzz mutate lint bench dist clean
help:
	@echo "make demo        own environment, install, then the main job on real images (about 2 minutes)"
	@echo "make test        own environment, install, then the tests (some minutes)"
	@echo "make test-slow   deeper property tests      make test-debug  tests with bounds checks compiled in"
	@echo "make test-data   tests that need JSC_DATA   make lint        ruff, cython-lint, mypy"
	@echo "make fuzz        hostile calls (SECONDS=300) make mutate      damaged plans and JPEG files (SECONDS=300)"
	@echo "make bench       quick benchmarks           make dist        sdist and wheel, tried in a clean environment"
	@echo "make clean       remove everything that was built"

# Environment: pinned versions, torch first (jsc itself needs torch only to run, not to build).
$(VENV)/.ready: pyproject.toml constraints.txt scripts/check_toolchain.sh
	@sh scripts/check_toolchain.sh $(PYTHON)
	@echo "jsc: making the environment $(VENV) (versions in constraints.txt) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install -c constraints.txt setuptools cython
	@touch $@

# jsc itself, editable; again when kernels change.
$(VENV)/.built: $(VENV)/.ready setup.py $(KERNEL_SOURCES)
	@echo "jsc: compiling the kernels and installing (some minutes) ..."
	@$(PIP) install -c constraints.txt --no-build-isolation -e ".[test]"
	@touch $@

demo: $(VENV)/.built
	@echo "jsc: the main job: train with and without the JPEG layer, then make the trained network faster"
	@mkdir -p out
	@$(BIN)/python -m jsc demo --plot out/demo.png --json out/demo.json

test: $(VENV)/.built
	@echo "jsc: running the tests ..."
	@$(PYTEST) -q
	@echo "jsc: all tests passed"

test-slow: $(VENV)/.built
	@$(PYTEST) -q -m slow --hypothesis-profile deep

test-data: $(VENV)/.built
	@test -n "$(JSC_DATA)" || (echo "jsc: set JSC_DATA to the data folder" && exit 2)
	@$(PIP) install -c constraints.txt -e ".[bench]" --no-build-isolation
	@JSC_DATA=$(JSC_DATA) $(PYTEST) -q -m data

test-debug: $(VENV)/.ready
	@JSC_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace --force
	@$(PYTEST) -q; status=$$?; $(BIN)/python setup.py -q build_ext --inplace --force; exit $$status

fuzz mutate: $(VENV)/.built
	@$(BIN)/python -W ignore -m tests.reliability.$@ --seconds $(SECONDS) --seed $(SEED)

lint: $(VENV)/.ready
	@$(PIP) install -c constraints.txt -e ".[lint]" --no-build-isolation
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/cython-lint src && $(BIN)/mypy
	@echo "jsc: nothing to mend"

bench: $(VENV)/.built
	@$(BIN)/python -m benchmarks conv --quick

dist: $(VENV)/.ready
	@sh scripts/check_dist.sh $(BIN)/python

clean:
	rm -rf $(VENV) build dist out src/*.egg-info src/jsc/_kernels/*.so
