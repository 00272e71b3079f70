# Two commands do all the set-up: `make demo` and `make test`. Everything below
# makes its own virtual environment in .venv from the lock file first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= config/turnout.yaml
PYTEST ?= $(BIN)/pytest
SCALE  ?= 1
SOAK_S ?= 3600
FUZZ_S ?= 600
STAMP  := $(VENV)/.installed

.PHONY: help run demo test soak fuzz check format bench judge docs lock clean

help:  ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

run: $(STAMP)  ## start the proxy on CONFIG (config/turnout.yaml)
	$(BIN)/turnout run $(CONFIG)

demo: $(STAMP)  ## see it: a good release, a bad one turned back, an outage held
	$(BIN)/turnout demo

test: $(STAMP)  ## every test, the end-to-end ones too
	$(PYTEST) -q -n auto --maxprocesses 4 --dist worksteal

soak: $(STAMP)  ## an hour (SOAK_S seconds) of trouble under load, beside nginx and HAProxy; SEED=... repeats one
	$(BIN)/python benchmarks/chaos.py --seconds $(SOAK_S) --report-every 60 $(if $(SEED),--seed $(SEED))

fuzz: $(STAMP)  ## FUZZ_S (600) seconds of hostile bytes for both sides; with atheris where it installs
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r tests/fuzz/requirements.txt
	$(BIN)/python -m tests.fuzz.run --seconds $(FUZZ_S) $(if $(SEED),--seed $(SEED))

check: $(STAMP)  ## formatting, lint, types, import contracts; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## CPU per request beside a bare relay and nginx
	$(BIN)/python benchmarks/cpu_per_request.py

judge: $(STAMP)  ## the judge on simulated traffic against its bounds (SCALE=0.25: a quarter of the runs)
	$(BIN)/python -m benchmarks.judge --scale $(SCALE) --write docs/judge.md

docs: $(STAMP)  ## write again what is generated: schema, configuration reference, diagram of a rollout
	$(BIN)/python -m proxy.control.config.reference
	$(BIN)/python -m proxy.control.rollout.diagram

lock:  ## resolve the dependencies again (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --quiet -o requirements.lock

clean:  ## remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
