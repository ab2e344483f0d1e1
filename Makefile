# `make demo` runs the main job, `make test` passes the tests; each prepares .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: install demo test check bench simulation chaos fuzz clean

install: $(READY)

# One environment for everything; made again only when what it must hold changes.
$(READY): pyproject.toml deploy/packaging/build_kernel.py shared/_resequence.c
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Waywarden needs Python 3.11 or newer and found " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Preparing .venv (a minute or two, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(READY)
	@$(BIN)/waywarden demo $(DEMO)

# Most tests wait for processes: two at a time take half as long. A file stays with one worker, which has its fixtures.
WORKERS ?= 2
test: $(READY)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(TESTS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m tests.bench $(BENCH)

# Nonsense at every door, for FUZZ_S seconds (docs/security.md).
FUZZ_S ?= 300
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_S)

# 2,000 bad days and every planted fault (docs/proof.md): some 20 minutes of one core.
simulation: $(READY)
	$(BIN)/python -m tests.simulation $(SIMULATION)
	$(BIN)/python -m tests.simulation --planted

# A hundred rounds of SIGKILL and cut cables on both stacks, and the control that must lose (docs/proof.md): half an hour.
chaos: $(READY)
	$(BIN)/python -m tests.chaos --rounds 100 --store embedded --broker embedded
	$(BIN)/python -m tests.chaos --rounds 100 --store postgres --broker mosquitto
	$(BIN)/python -m tests.chaos --rounds 10 --control puback

clean:
	rm -rf .venv run
