# Both commands set up .venv by themselves, once; delete it to start over.
PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check
# The oldest Python of a board (JetPack 6); its tests are skipped where there is none.
DEVICE_PYTHON ?= $(shell for python in python3.10 $(HOME)/.pyenv/versions/3.10.*/bin/python; \
	do $$python -c '' 2>/dev/null && echo $$python && break; done)

# Two tests at a time on two cores; a process of its own each, with a thread.
PYTEST := -m pytest -n auto --maxprocesses 4 --dist worksteal
test test-device: export OMP_NUM_THREADS = 1

.PHONY: demo test test-device check-board lint fuzz kills clean

demo: .venv/.demo
	$(BIN)/irstd-edge demo --out demo-out

test: .venv/.dev lint test-device
	$(BIN)/python $(PYTEST)

ifeq ($(DEVICE_PYTHON),)
test-device:
	@echo "device tests skipped: no Python 3.10 here, name one by DEVICE_PYTHON=..."
else
test-device: .venv-device/.done
	.venv-device/bin/python $(PYTEST) -q tests/edge tests/benchmarks
endif

# Whether a board (aarch64, Python 3.10 and 3.12) finds wheels of all that it installs; online.
check-board: .venv/.dev
	IRSTD_EDGE_ASK_INDEX=1 $(BIN)/python -m pytest -q tests/test_board_install.py

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The long forms of tests/hostile, of which `test` runs a part.
fuzz: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/hostile/fuzz.py --count 20500

kills: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/hostile/kills.py --kills 200

clean:
	rm -rf .venv .venv-device demo-out build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) --upgrade pip

# `dev` holds all that `demo` needs, so either order installs nothing twice.
.venv/.demo: pyproject.toml | $(BIN)/python
	test .venv/.dev -nt pyproject.toml || \
		$(BIN)/python $(PIP) -e '.[train,openvino]'
	touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python $(PIP) -e '.[dev]'
	touch $@

# What a board installs, and the test tools.
.venv-device/.done: pyproject.toml
	$(DEVICE_PYTHON) -m venv .venv-device
	.venv-device/bin/python $(PIP) --upgrade pip
	.venv-device/bin/python $(PIP) -e . hypothesis pytest pytest-timeout pytest-xdist
	touch $@
