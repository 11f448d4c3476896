# Everything builds .venv first, once; nothing else needs the network.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
SLOW_WORKERS ?= 3  # end-to-end tests mostly wait

.PHONY: install demo up test test-exhaustive lint bench bench-curation bench-train bench-gpu pictures clean

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

test: install  ## unit tests, then those that train, kill processes, start servers and drive a browser
	$(BIN)/python -m l3_platform.preload & kernels=$$!; $(MAKE) --no-print-directory lint && wait $$kernels
	$(BIN)/pytest -n $(WORKERS) -m 'not slow and not exhaustive'
	$(BIN)/pytest -n $(SLOW_WORKERS) --dist loadfile -m 'slow and not exhaustive'

test-exhaustive: install  ## what takes longest: Slurm, Kubernetes, Ray, ssh, 16 processes, interval coverage, 10,000 mutations
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m exhaustive

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: bench-curation bench-train  ## ours beside named peers, in one run each

bench-train: .venv-bench/installed  ## tokens a second beside transformers and litgpt; what Dagster and MLflow cost
	.venv-bench/bin/python -m benchmarks.training
	.venv-bench/bin/python -m benchmarks.tracking_cost

bench-gpu: .venv-bench/installed  ## on an NVIDIA GPU: attention kernels, MFU, fp8, beside transformers and litgpt; six minutes
	.venv-bench/bin/python -m benchmarks.gpu_training

bench-curation: .venv-bench/installed  ## side by side with named peers, one table of ratios from one run
	.venv-bench/bin/python -m benchmarks $(PARTS)

# The peers' own environment: it sees ours and adds what is missing, so that nothing of theirs reaches ours.
.venv-bench/installed: .venv/installed
	test -x .venv-bench/bin/python || $(BIN)/python -m venv .venv-bench
	$(BIN)/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' \
		> $$(.venv-bench/bin/python -c 'import site; print(site.getsitepackages()[0])')/ours.pth
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench,train]'
	# litgpt asks for older libraries than ours, of which its model needs none.
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'litgpt>=0.5' lightning lightning-utilities torchmetrics
	# datatrove's MinHash hands strings to xxhash, which refuses them from 4 on.
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-installed 'xxhash<4'
	touch $@

pictures: install  ## docs/images, from a demo run in headless Chromium
	$(BIN)/python -m docs.make_pictures

clean:  ## run-time state only; .venv stays
	rm -rf .l3
