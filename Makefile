# Two commands do all the set-up: `make run` and `make test`. Each makes a clean environment from the constraints.
PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.installed

.PHONY: run test quick faults lint clean

run: $(STAMP)
	$(VENV)/bin/effstilts run quickstart

test: $(STAMP)-dev lint
	$(VENV)/bin/pytest

quick: $(STAMP)-dev
	$(VENV)/bin/pytest -m "not slow"

# The full form of the fault suite (hours); pytest runs its fast form. Figures: benchmarks/results/faults.json.
faults: $(STAMP)-dev
	EFFSTILTS_FAULTS=full $(VENV)/bin/pytest tests/faults

lint: $(STAMP)-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "effstilts needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --use-pep517 --constraint constraints.txt --editable .
	touch $@

$(STAMP)-dev: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --use-pep517 --constraint constraints.txt --editable '.[all]'
	touch $@

clean:
	rm -rf $(VENV)
