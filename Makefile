# `make` alone lists the targets. Each makes what it needs in .venv, without root; a second call finds it ready.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-quick coverage faults attacks fuzz lint check fmt lock docker-smoke clean

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?=
PYTHON ?=
# What the tests of the torch helper and of the examples install beside the locks, in words for pip: another build goes
# here, for instance one that holds a CPU's code alone and is a tenth of the size (TORCH="--no-deps torch==2.13.0": what
# such a build needs is locked). Empty leaves torch out, and those tests are skipped.
TORCH ?= torch>=2.4

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.base ## a federation on this machine: controller, three learners, driver (ARGS="--rounds 10")
	$(BIN)/metis demo $(ARGS)

test: $(VENV)/.dev ## the tests (PYTEST_ARGS="-k aggregation", TORCH="torch==2.13.0")
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

test-quick: $(VENV)/.dev ## the tests for daily work: what needs no federation of processes, no slow tests
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal tests/services tests/learner_agent/digits tests/test_architecture.py $(PYTEST_ARGS)

coverage: $(VENV)/.dev ## the tests, and how much of the code they run: 97 % at least
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term $(PYTEST_ARGS)

faults: $(VENV)/.dev ## break federations in every way there is; writes the table of docs/reliability.md
	scripts/faults

attacks: $(VENV)/.dev ## attack a federation in every way there is; writes the table of docs/security.md
	scripts/attacks

fuzz: $(VENV)/.dev ## ten minutes of schemathesis against a controller (ARGS="60": as many seconds)
	METIS_FUZZ_S=$(firstword $(ARGS) 600) $(BIN)/python -m pytest -n 2 tests/contract/test_fuzzing.py $(PYTEST_ARGS)

lint: $(VENV)/.dev ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy scripts/make_digits

check: lint ## lint, then the direction of imports, the documentation, and where node is the OpenAPI document
	$(BIN)/python -m pytest tests/test_architecture.py tests/docs tests/contract/test_linters.py

fmt: $(VENV)/.dev ## put the code into the project's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev ## renew the locked versions of requirements/ by the newest that pyproject.toml admits
	scripts/lock

docker-smoke: ## build and run the compose file, kill a learner, look at what is left
	scripts/docker-smoke

clean: ## remove the environment and what builds and tools leave
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first Python that is new enough and can make an environment with pip in it.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$$python -m venv $(VENV)"; exec $$python -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo 'No Python >= 3.11 with venv and pip was found among python3, python3.14 ... python3.11.' >&2; \
	echo 'Install one (Debian, Ubuntu: python3 and python3-venv), or name one: make demo PYTHON=/path/to/python' >&2; \
	exit 1

# Two calls of pip for what is locked and what is not: with --require-hashes everything must have one, and torch and the
# project itself have none.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
locked = $(PIP) --require-hashes $(foreach name,$(1),-r requirements/$(name).txt)
PROJECT := --no-deps --no-build-isolation -e .

# Stamps: an environment is made anew only when pyproject.toml or a lock changes. `dev` holds all of `base`.
$(VENV)/.base: pyproject.toml requirements/base.txt requirements/build.txt | $(BIN)/python
	$(call locked,base build)
	$(PIP) $(PROJECT)
	touch $@

$(VENV)/.dev: pyproject.toml $(wildcard requirements/*.txt) | $(BIN)/python
	$(call locked,base build dev redis sklearn $(if $(TORCH),torch))
	$(if $(TORCH),$(PIP) $(foreach word,$(TORCH),'$(word)'))
	$(PIP) $(PROJECT)
	touch $(VENV)/.base $@
