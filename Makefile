# `make demo` and `make test` set up everything they need: only Python >= 3.11 has to be there.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
RUNTIMES := $(VENV)/.runtimes
STAMP := $(VENV)/.everything
PIP := $(BIN)/python -m pip install -q --no-compile -c constraints.txt
WORKERS ?= 2
DEMO := out/digits
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start many processes, and all import the same thousands of modules: compiled once, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test test-slow check format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## virtual environment with everything

# torch first and spelled like this, so that a CPU wheel at hand is taken and no CUDA libraries are pulled in.
$(RUNTIMES): constraints.txt pyproject.toml
	@python="$$(./.ci/find-python)" && { test -x $(BIN)/python || "$$python" -m venv $(VENV); }
	$(PIP) torch==2.13.0
	$(PIP) -e '.[onnx,openvino,quantize]'
	@touch $@

$(STAMP): $(RUNTIMES)
	$(PIP) -e '.[all,dev]'
	@touch $@

demo: $(RUNTIMES)  ## compress the shipped teacher for this machine; before/after table at the end
	$(BIN)/compactor build examples/digits/teacher.pt2 --target host-cpu --data examples/digits/data \
	  --effort quick --pipeline canonicalize,search.uniform,distill.logits,fold_batchnorm,quantize.fastest \
	  --drop 2% --output $(DEMO)/host-cpu

test: $(STAMP)  ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

test-slow: $(STAMP)  ## the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m slow

check: $(STAMP)  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p compactor
	$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, caches and outputs
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
