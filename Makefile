# make serve    install, then build and serve the bundled detector
# make test     install, then lint, type checks, import contracts and tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?=
CALIBRATION ?=
UP_FLAGS ?=
CLIENTS := tritonclient inference-sdk
# The packages that read untrusted bytes, and the tests that send hostile ones.
UNTRUSTED := h11|pillow|pydantic|python-multipart|simplejpeg
HOSTILE_TESTS := tests/service/vision/test_image.py tests/bench/test_hostile.py
# Each process of the tests would compile the packages again.
unexport PYTHONDONTWRITEBYTECODE
ARM64 := _2_35 _2_34 _2_31 _2_28 _2_27 _2_26 _2_24 _2_17 2014

.PHONY: help setup serve demo test check secrets audit arm64 docs fix lock clean

help:
	@echo "make serve    install, build int8, serve on $(HOST):$(PORT)"
	@echo "              MODEL=yolo.onnx, or a name that qyolo models lists; CALIBRATION=images/"
	@echo "make demo     install, then draw boxes on the sample images"
	@echo "make test     install, then lint, type checks, import contracts, tests"
	@echo "make setup    install into $(VENV)"
	@echo "make secrets  look for credentials in the files that git tracks"
	@echo "make audit    look up advisories on the locked packages; needs the network"
	@echo "make arm64    check that each locked package has a wheel for 64-bit ARM"
	@echo "make docs     build the documentation into site/"
	@echo "make fix      format, and fix the findings that ruff can fix"
	@echo "make lock     resolve the lock files again"

setup: $(VENV)/.cpu

serve: setup
	exec $(BIN)/qyolo up $(MODEL) $(if $(CALIBRATION),--calibration "$(CALIBRATION)") \
		--host $(HOST) --port $(PORT) $(UP_FLAGS)

demo: setup
	$(BIN)/qyolo detect --demo

test: check $(VENV)/floor/.installed $(CLIENTS:%=$(VENV)/clients/%/.installed)
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
	PYTHONPATH=$(CURDIR)/$(VENV)/floor $(BIN)/pytest --quiet --numprocesses 2 $(HOSTILE_TESTS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Digests are everywhere here, so the plugins that search for random strings are off.
secrets: $(VENV)/.dev
	git ls-files -z ':!*.jpg' ':!*.png' ':!*.onnx' ':!*.lock' | xargs -0 $(BIN)/detect-secrets-hook \
		--disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString \
		--disable-plugin KeywordDetector --disable-plugin IPPublicDetector --

# A package that cannot be looked up is a failure: a mirror without advisories would pass them all.
audit: | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements/dev.lock

# Each locked package must have a wheel for 64-bit ARM with glibc 2.35 or newer, by its hash.
arm64: | $(BIN)/python
	for lock in cpu:311 camera:311 gpu:311 tensorrt:312 build:311; do \
		$(PIP) download --no-deps --require-hashes --only-binary :all: \
			--python-version $${lock#*:} $(ARM64:%=--platform manylinux%_aarch64) \
			-r requirements/$${lock%:*}.lock -d $(VENV)/arm64 || exit 1; \
	done

docs: setup $(VENV)/docs/.installed
	rm -rf docs/reference
	$(BIN)/python docs/pages docs/reference
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --strict

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade --extra cpu --extra frigate pyproject.toml \
		-o requirements/cpu.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade --extra cpu --extra dev pyproject.toml \
		-o requirements/dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade -c requirements/cpu.lock --extra camera \
		pyproject.toml -o requirements/camera.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade -c requirements/dev.lock --extra cpu \
		--extra cluster pyproject.toml -o requirements/cluster.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade -c requirements/cpu.lock --extra gpu \
		--extra frigate pyproject.toml -o requirements/gpu.lock
	echo "cuda-bindings>=12.8,<13" | \
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade -c requirements/cpu.lock --extra frigate \
		pyproject.toml - -o requirements/tensorrt.lock
	sed -n 's/^requires = \["\(hatchling.*\)"\]/\1/p' pyproject.toml | \
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade - -o requirements/build.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb")) \
		["project"]["optional-dependencies"]["docs"], sep="\n")' | \
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade - -o requirements/docs.lock
	for client in 'tritonclient[http]' inference-sdk; do \
		echo "$$client" | \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-header --upgrade - \
			-o "requirements/$${client%[*}.lock" || exit 1; \
	done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf site docs/reference

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cpu: requirements/cpu.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/cpu.lock
	$(PIP) install --no-deps --editable .
	touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.cpu
	$(PIP) install --require-hashes -r requirements/dev.lock
	touch $@

# The least versions that pyproject.toml admits; they come before the locked ones on PYTHONPATH.
$(VENV)/floor/.installed: pyproject.toml $(VENV)/.dev
	rm -rf $(@D)
	$(PIP) install --target $(@D) \
		$$(sed -nE 's/^  "($(UNTRUSTED))>=([0-9.]+)".*/\1==\2/p' pyproject.toml)
	touch $@

# The site generator has an environment of its own: nothing needs it to run or test qyolo.
$(VENV)/docs/.installed: requirements/docs.lock | $(BIN)/python
	$(BIN)/python -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	touch $@

# Other clients pin packages that qyolo uses too, so each has an environment of its own.
$(VENV)/clients/%/.installed: requirements/%.lock | $(BIN)/python
	$(BIN)/python -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	touch $@
