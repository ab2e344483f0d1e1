# `make demo` runs the main job, `make test` passes the tests; each prepares .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: install demo test check bench clean

install: $(READY)

# One environment for everything; re-made only when what it must hold changes.
$(READY): pyproject.toml deploy/packaging/build_kernel.py shared/_resequence.c
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Waywarden needs Python 3.11 or newer, found " + sys.version.split()[0] + "; set PYTHON=python3.12 or the like")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: $(READY)
	$(BIN)/waywarden demo $(DEMO)

test: $(READY)
	$(BIN)/python -m pytest $(TESTS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) run
