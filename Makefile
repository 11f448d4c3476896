# Everything builds .venv first, once; nothing else needs the network.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.PHONY: install demo up test lint bench pictures clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## the whole house on the built-in small web, then the report
	$(BIN)/l3 demo

up: install  ## Dagster UI and MLflow on 127.0.0.1
	$(BIN)/l3 up

test: install lint  ## unit tests in parallel, then the slow ones, one at a time
	$(BIN)/pytest -n $(WORKERS) -m 'not slow'
	$(BIN)/pytest -m slow

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: install  ## side by side with named peers, ratios from one run
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks

pictures: install  ## docs/images, from a demo run in headless Chromium
	$(BIN)/python -m docs.make_pictures

clean:  ## run-time state only; .venv stays
	rm -rf .l3
