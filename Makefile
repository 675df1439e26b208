# Requires git, make, and Python 3.11 or later with its venv module (Debian: python3-venv), uv or
# virtualenv. Everything else is installed into .venv, in this checkout.
#
#   PYTHON   the interpreter to make .venv with          make test PYTHON=python3.13
#   ARGS     what pytest gets                            make test ARGS='-m "not slow"'
#                                                        make test ARGS='-k whiteout -x'
#            or the bench                                make bench ARGS='--inputs debian --runs 7'
#   SUITE    the Debian to test in                       make test-debian SUITE=bookworm
#   USERS    who runs the tests there                    make test-debian USERS=root
#   FUZZ_SECONDS  how long each target is fuzzed         make fuzz FUZZ_SECONDS=60

PYTHON ?=
ARGS ?=
SUITE ?= trixie
USERS ?= root tester
FUZZ_SECONDS ?= 1200
# The tests call `make demo` with another directory that has ociroot, and with nothing to prepare.
BIN := .venv/bin
SETUP := PYTHON='$(PYTHON)' sh tools/setup.sh
# tools/clean-env.sh keeps of the environment HOME, PATH, TMPDIR, the locale, CI, proxies (the tests
# bootstrap a Debian) and OCIROOT_* and HYPOTHESIS_*. A setting of Python, pip or make on one machine
# would otherwise hide failures on the next one.
CLEAN := sh tools/clean-env.sh
CODE := src tests examples tools fuzz bench

.DEFAULT_GOAL := help
.PHONY: help venv dev demo test test-debian coverage mutants bench bench-scale lint fuzz \
	fuzz-readers figures packages clean

help:
	@echo 'make demo    build a sample image, extract it, show the tree and the configuration'
	@echo 'make test    check with ruff and mypy, then run the tests (ARGS=... goes to pytest);'
	@echo '             as root on Debian it installs the programs that the tests compare with'
	@echo 'make test-debian   as root: run them in a fresh Debian tree, as root and as an ordinary user'
	@echo '             (SUITE=trixie)'
	@echo 'make coverage run the tests and print which lines of src no test reaches (ARGS=...)'
	@echo 'make mutants run the tests against deliberate faults (tests/mutants), and print those that survive'
	@echo 'make bench   as root on Debian: measure extraction and other programs, for hours'
	@echo '             (ARGS=--help lists the options); make bench-scale: how time and memory grow'
	@echo 'make lint    check with ruff and mypy; make venv, make dev: prepare .venv alone, without or with'
	@echo '             what tests and checks need; make packages: install the Debian packages of the tests'
	@echo 'make fuzz    fuzz every target for FUZZ_SECONDS (20 minutes), and print the findings;'
	@echo '             make fuzz-readers: compare with how other programs read small inputs'
	@echo 'make figures run the tests that try to break things, and print the results'
	@echo 'make clean   remove .venv, builds and caches'

venv:
	@$(SETUP)

# With what the tests and the checks need.
dev:
	@$(SETUP) test,lint

demo: venv
	@sh tools/demo.sh '$(BIN)'

test: packages lint
	@$(CLEAN) $(BIN)/python -m pytest $(ARGS)

test-debian: export ARGS := $(ARGS)
test-debian: export USERS := $(USERS)
test-debian:
	@command -v mmdebstrap >/dev/null || sh tools/apt-install.sh mmdebstrap
	@sh tools/debian.sh $(SUITE)

# Tests that become another user write their data, too.
coverage: dev packages
	@$(SETUP) coverage
	@rm -rf build/coverage && mkdir -p -m 1777 build/coverage
	@status=0; $(CLEAN) $(BIN)/python -m coverage run -m pytest $(ARGS) || status=$$?; \
	$(BIN)/python -m coverage combine --quiet; \
	$(BIN)/python -m coverage report; \
	exit $$status

mutants: dev packages
	@$(CLEAN) $(BIN)/python -m tools.mutants $(ARGS)

bench: dev packages
	@command -v npm >/dev/null || sh tools/apt-install.sh npm
	@$(BIN)/python -m bench $(ARGS)

bench-scale: dev packages
	@$(BIN)/python -m bench scale $(ARGS)

lint: dev
	@$(BIN)/python -m ruff check $(CODE)
	@$(BIN)/python -m ruff format --check $(CODE)
	@$(BIN)/python -m mypy

fuzz: dev
	@$(SETUP) fuzz
	@$(BIN)/python -m fuzz.campaign $(FUZZ_SECONDS)

fuzz-readers: dev packages
	@$(BIN)/python -m fuzz.readers $(FUZZ_SECONDS) $(ARGS)

figures: dev packages
	@$(CLEAN) $(BIN)/python tools/figures.py $(ARGS)

packages:
	@sh tools/packages.sh

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests examples tools fuzz bench -name __pycache__ -prune -exec rm -rf {} +
