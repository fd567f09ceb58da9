# make serve MODEL=yolo.onnx CALIBRATION=images/   set up, then build and serve
# make test                                        set up, then lint, types, contracts and tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
HOST ?= 127.0.0.1
PORT ?= 8000
UP_FLAGS ?=

.PHONY: help setup serve test check fix lock clean

help:
	@echo "make setup                                        install into $(VENV)"
	@echo "make serve MODEL=yolo.onnx CALIBRATION=images/    set up, build int8, serve on $(HOST):$(PORT)"
	@echo "make test                                         set up, then lint, types, contracts, tests"
	@echo "make fix                                          format and repair what ruff can"
	@echo "make lock                                         resolve the lock files anew"

setup: $(VENV)/.cpu

serve: setup
	@test -n "$(MODEL)" || { echo "say which model: make serve MODEL=yolo.onnx CALIBRATION=images/"; exit 2; }
	@test -n "$(CALIBRATION)" || { echo "say where images are: make serve MODEL=$(MODEL) CALIBRATION=images/"; exit 2; }
	exec $(BIN)/qyolo up "$(MODEL)" --calibration "$(CALIBRATION)" --host $(HOST) --port $(PORT) $(UP_FLAGS)

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
