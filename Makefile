# jsc: `make` prints what there is. Both `make demo` and `make test` set everything up on a fresh
# machine (Python >= 3.10, a C++ compiler) and are quick the second time.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
HEADERS := $(wildcard src/jsc/_kernels/*.h src/jsc/_kernels/*/*.h)
CPP     := $(HEADERS) $(wildcard benchmarks/*/*.cpp)
KERNEL_SOURCES := $(HEADERS) $(wildcard src/jsc/_kernels/*.p[yx][xd] src/jsc/_kernels/*/*.p[yx][xdi])
# Threads that wait in sleep: where cores are shared, waiting in a loop costs minutes.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest
SIDE_BY_SIDE := -n auto --maxprocesses 8

# For how long `make fuzz` and `make mutate` try new cases, how many calls and cases `make races` and
# `make differential` try, and from which seed.
SECONDS ?= 300
CALLS ?= 1000000
CASES ?= 10000
SEED ?= 0

.PHONY: help demo test test-slow test-data test-debug bench wheel dist matrix clean
.PHONY: docs linkcheck
.PHONY: lint lint-python lint-types lint-cython lint-cpp format
.PHONY: fuzz mutate races growth differential emulate sanitize aarch64
help:
	@echo "make demo        own environment, install, then the main job on real images (about 2 minutes)"
	@echo "make test        own environment, install, then the tests (some minutes)"
	@echo "make test-slow   deeper property tests      make test-debug  tests with bounds checks compiled in"
	@echo "make test-data   tests that need JSC_DATA   make lint        all linters"
	@echo "make format      what the linters can mend themselves"
	@echo "make fuzz        hostile calls (SECONDS=300) make mutate      damaged plans and JPEG files"
	@echo "make races       threads (CALLS=1000000)     make growth      memory over 20,000 calls"
	@echo "make differential  methods against float64 (CASES=10000), on this processor's instruction sets"
	@echo "make emulate     kernel tests with AVX-512 and AMX emulated"
	@echo "make sanitize    the same with sanitizers    make aarch64     the same on an emulated ARM processor"
	@echo "make bench       quick benchmarks           make wheel       sdist and wheel, checked"
	@echo "make dist        both, tried afresh         make matrix      each Python, oldest and newest torch"
	@echo "make docs        the documentation site     make linkcheck   its links"
	@echo "make clean       remove everything that was built"

# Environment: pinned versions, torch first (jsc itself needs torch only to run, not to build): with CUDA,
# gigabytes, unless pip is told otherwise; constraints.txt says how.
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
	@$(PYTEST) -q $(SIDE_BY_SIDE)
	@echo "jsc: all tests passed"

test-slow: $(VENV)/.built
	@$(PYTEST) -q -m slow --hypothesis-profile deep

test-data: $(VENV)/.built
	@test -n "$(JSC_DATA)" || (echo "jsc: set JSC_DATA to the data folder" && exit 2)
	@$(PIP) install -c constraints.txt -e ".[bench]" --no-build-isolation
	@JSC_DATA=$(JSC_DATA) $(PYTEST) -q -m data

# Builds of their own, beside the ordinary one.
test-debug: $(VENV)/.built
	@JSC_DEBUG=1 sh scripts/variant.sh $(BIN)/python build/debug
	@cd build/debug && PYTHONPATH=$$PWD/src OMP_WAIT_POLICY=passive \
		../../$(BIN)/python -m pytest -q $(SIDE_BY_SIDE)

fuzz mutate: $(VENV)/.built
	@$(BIN)/python -W ignore -m tests.reliability.$@ --seconds $(SECONDS) --seed $(SEED)

races: $(VENV)/.built
	@$(BIN)/python -W ignore -m tests.reliability.races --calls $(CALLS) --seed $(SEED)

growth: $(VENV)/.built
	@$(BIN)/python -W ignore -m tests.reliability.growth

differential: $(VENV)/.built
	@$(BIN)/python -W ignore -m tests.reliability.differential --cases $(CASES) --seed $(SEED)
	@$(BIN)/python -W ignore -m tests.reliability.differential_networks --cases $$(($(CASES) / 20)) \
		--seed $(SEED)

emulate: $(VENV)/.built
	@JSC_EMULATE=1 sh scripts/variant.sh $(BIN)/python build/emulate
	@cd build/emulate && PYTHONPATH=$$PWD/src OMP_WAIT_POLICY=passive \
		../../$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) \
		tests/kernels tests/network tests/formats tests/methods
	@cd build/emulate && PYTHONPATH=$$PWD/src ../../$(BIN)/python -W ignore -m tests.reliability.differential \
		--cases $(CASES) --seed $(SEED)

sanitize: $(VENV)/.built
	@sh scripts/sanitize.sh $(BIN)/python

# An environment of its own, on an x86-64 Debian: TESTS="tests/nn tests/jpeg" takes others.
aarch64:
	@sh scripts/aarch64.sh $(TESTS)

# Linters read the sources: nothing is compiled for them.
$(VENV)/.linters: $(VENV)/.ready
	@$(PIP) install -c constraints.txt numpy ruff cython-lint mypy clang-format
	@touch $@

lint: lint-python lint-types lint-cython lint-cpp
	@echo "jsc: nothing to mend"

lint-python: $(VENV)/.linters
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

lint-types: $(VENV)/.linters
	@$(BIN)/mypy

# cython-lint looks for pycodestyle on the path.
lint-cython: $(VENV)/.linters
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/cython-lint src

lint-cpp: $(VENV)/.linters
	@$(BIN)/clang-format --dry-run --Werror $(CPP)

# What the linters can mend themselves.
format: $(VENV)/.linters
	@$(BIN)/ruff check --fix-only -q . && $(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CPP)

# The site, from docs/, examples/ (which are run) and the pages of the benchmarks. Warnings are errors.
$(VENV)/.docs: $(VENV)/.built
	@$(PIP) install -c constraints.txt --no-build-isolation -e ".[docs]"
	@touch $@

SPHINX := OMP_WAIT_POLICY=passive MPLBACKEND=agg $(BIN)/python -m sphinx -W --keep-going -q -c docs . out/docs

docs: $(VENV)/.docs
	@echo "jsc: running the examples and building the site ..."
	@$(SPHINX)
	@echo "jsc: the site is out/docs/index.html"

# Links between pages are checked by `docs`, those to other sites here; without a network they are named
# as unchecked.
linkcheck: $(VENV)/.docs
	@sh scripts/check_links.sh $(BIN)/python

bench: $(VENV)/.built
	@$(BIN)/python -m benchmarks conv --quick

# Into dist/: the sdist, the wheel from it. `dist` tries both as well.
wheel: $(VENV)/.ready
	@sh scripts/wheel.sh $(BIN)/python

dist: wheel
	@sh scripts/check_dist.sh $(BIN)/python

# Each Python that is found with the oldest and the newest torch: PYTHONS="3.10 3.13", TORCHES=oldest.
matrix: $(VENV)/.ready
	@$(BIN)/python scripts/matrix.py

clean:
	rm -rf $(VENV) build dist out docs/examples docs/reference src/*.egg-info
	rm -f src/jsc/_kernels/*.so src/jsc/_kernels/*/*.so
