# make serve    set up, then build and serve the detector that comes with it
# make test     set up, then lint, types, contracts and tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?=
CALIBRATION ?=
UP_FLAGS ?=

.PHONY: help setup serve demo test check fix lock clean

help:
	@echo "make serve    set up, build int8, serve on $(HOST):$(PORT)"
	@echo "              MODEL=yolo.onnx or a name that qyolo models lists; CALIBRATION=images/"
	@echo "make demo     set up, then draw boxes on the sample photos"
	@echo "make test     set up, then lint, types, contracts, tests"
	@echo "make setup    install into $(VENV)"
	@echo "make fix      format and repair what ruff can"
	@echo "make lock     resolve the lock files anew"

setup: $(VENV)/.cpu

serve: setup
	exec $(BIN)/qyolo up $(MODEL) $(if $(CALIBRATION),--calibration "$(CALIBRATION)") \
		--host $(HOST) --port $(PORT) $(UP_FLAGS)

demo: setup
	$(BIN)/qyolo detect --demo

test: check
	$(BIN)/pytest

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade --extra cpu pyproject.toml -o requirements/cpu.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade --extra cpu --extra dev pyproject.toml \
		-o requirements/dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: requirements/cpu.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/cpu.lock
	$(PIP) install --no-deps --editable .
	touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.cpu
	$(PIP) install --require-hashes -r requirements/dev.lock
	touch $@
