# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two threads each would fight over two cores: workers of the test runner get one.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONWARNINGS=default

.PHONY: demo test robust fuzz check schemas bench assets clean help

demo: $(VENV)/.installed  ## generate 5,000 digit images, keep 800, measure whether they help, write the report page
	$(BIN)/synthforge run recipes/digits.yaml

test: $(VENV)/.installed-dev  ## the everyday tests; SLOW=1 adds the slow ones
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 $(if $(SLOW),,-m "not slow")

# Each seed changes the training runs: see tests/perturbed/sitecustomize.py.
SEEDS ?= $(shell seq 0 19)
THREADS ?= 1 2

robust: $(VENV)/.installed-dev  ## tests that train models, 20 seeds, one and two threads (hours); TESTS=file for some
	@failed=0; for threads in $(THREADS); do for seed in $(SEEDS); do echo "PERTURB=$$seed:$$threads"; \
	  PERTURB=$$seed:$$threads PYTHONPATH="$(CURDIR)/tests/perturbed:$(CURDIR)" OMP_WAIT_POLICY=PASSIVE $(TEST_ENV) \
	  $(BIN)/python -m pytest -q -n $$((2 / threads)) -m trains $(TESTS) || failed=1; done; done; exit $$failed

CASES ?= 50000

fuzz: $(VENV)/.installed-dev  ## damaged and hostile inputs for every reader (a quarter of an hour); CASES=1000 for fewer
	$(BIN)/python -m tests.contracts.fuzz --cases $(CASES)

check: $(VENV)/.installed-dev  ## linters, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schemas: $(VENV)/.installed-dev  ## write docs/schemas again, from the models of the result files
	for name in evaluation diagnosis gap run complete; do $(BIN)/synthforge recipe schema $$name > docs/schemas/$$name.json; done

bench: $(VENV)/.installed-dev  ## measure most figures of docs/findings.md again (hours), into benchmarks/results
	$(BIN)/python -m benchmarks

assets: $(VENV)/.installed-dev  ## make the embedded digits and generators again (see synthforge/assets/README.md)
	PATH="$(abspath $(BIN)):$$PATH" sh scripts/make_assets.sh

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install -q -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:  ## remove runs and caches, not the virtual environment
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
