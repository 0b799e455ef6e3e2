# Both commands set up .venv by themselves, once; delete it to start over.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.demo
	$(BIN)/irstd-edge demo --out demo-out

test: .venv/.dev lint
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv demo-out build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

# `dev` holds all that `demo` needs, so either order installs nothing twice.
.venv/.demo: pyproject.toml | $(BIN)/python
	test .venv/.dev -nt pyproject.toml || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,openvino]'
	touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
