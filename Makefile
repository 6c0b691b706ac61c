# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VENV_BENCH := .venv-bench
PEERS := tests/benchmarks/engine/requirements.txt
# A test whose time-out (pyproject.toml) is swallowed by an event loop or a broad except would wait
# for ever: then the process ends, with the stacks of all threads.
BACKSTOP := -o faulthandler_timeout=720 -o faulthandler_exit_on_timeout=true
# One thread in BLAS: the work is parallel over processes already.
export OPENBLAS_NUM_THREADS := 1
export PYTHONUNBUFFERED := 1

.PHONY: help install demo test test-all check format bench bench-engine bench-match bench-ncc bench-plan bench-relax bench-render bench-runner bench-storage bench-training bench-update accuracy chaos faults up down lock clean

help:
	@echo "make demo [DATA=path] [SET=stage.name=value]  align sample sections (or your own) end to end, and show where the result is"
	@echo "make test              the tests; make test-all adds the slow ones"
	@echo "make check             ruff, mypy, import-linter, codespell;  make format  mends what it can"
	@echo "make bench             the benchmarks;  make bench-engine, bench-match, bench-ncc, bench-relax, bench-render, bench-runner, bench-storage  the tables of docs/performance.md;  make bench-training  that of docs/training.md;  make bench-plan  the rates of petalign plan and the tables of docs/scale.md;  make bench-update  that of docs/reprocessing.md"
	@echo "make accuracy          the tables of docs/accuracy.md;  make faults, make chaos  those of docs/reliability.md;  make up | down  the embedded platform"

KERNEL := $(wildcard alignment/native/*.cpp alignment/native/*.hpp inference/native/*.cpp inference/native/*.hpp) \
    alignment/native/build.py inference/native/builder.py

install: $(VENV)/.kernel

# Installed only where there is no C++ compiler: 0.4 GB, so not part of requirements.lock.
ZIG := ziglang==0.17.1

# The compiled kernels. Without a C++ compiler, the one that the ziglang wheel holds.
$(VENV)/.kernel: $(STAMP) $(KERNEL)
	@command -v "$${CXX:-c++}" >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 \
	    || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$(ZIG)"
	@$(BIN)/python -m alignment.native.build
	@$(BIN)/python -m inference.native.build
	@touch $@

$(STAMP): requirements.lock pyproject.toml .ci/find-python
	@python=$$(.ci/find-python) && echo "setting up $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock \
	    || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: install
	@$(BIN)/petalign demo $(if $(DATA),--data "$(DATA)") $(foreach setting,$(SET),--set $(setting))

test: install
	@$(BIN)/python -m pytest -m "not slow" $(BACKSTOP)

test-all: install
	@$(BIN)/python -m pytest

check: install
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=.:plugins $(BIN)/lint-imports
	@$(BIN)/codespell alignment dags docs inference plugins storage tests README.md CHANGELOG.md

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only

# An hour or two; what was raced is kept in .benchmarks/engine, so that it may be cut short.
bench-engine: install $(VENV_BENCH)/.installed
	@$(BIN)/python -m tests.benchmarks.engine.table --write
	@$(BIN)/python -m tests.benchmarks.engine.sweep --write
	@$(BIN)/python -m tests.benchmarks.engine.layers --write
	@$(BIN)/python -m tests.benchmarks.engine.cost --write
	@$(BIN)/python -m tests.benchmarks.engine.ablation --write

# What the engine is compared with: no part of requirements.lock, and on a Python of its own, 3.11
# if there is one: some indexes have PyTorch without CUDA (0.2 GB, not gigabytes) for that one only.
$(VENV_BENCH)/.installed: $(PEERS)
	@for python in $(BENCH_PYTHON) python3.11 "$$(.ci/find-python)"; do \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null && break; done \
	    && echo "setting up $(VENV_BENCH) with $$python" && "$$python" -m venv --clear $(VENV_BENCH)
	@$(VENV_BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r $(PEERS) \
	    || grep -v '^#' $(PEERS) | xargs -n 1 $(VENV_BENCH)/bin/python -m pip install --quiet \
	    || echo "some peers could not be installed: their rows will say so"
	@touch $@

bench-match: install
	@$(BIN)/python -m tests.benchmarks.match.table

bench-ncc: install
	@$(BIN)/python -m tests.benchmarks.ncc_layer.table --write

bench-plan: install
	@$(BIN)/python -m tests.benchmarks.plan.rates --write
	@$(BIN)/python -m tests.benchmarks.plan.table --write
	@$(BIN)/python -m tests.benchmarks.plan.headline --write

bench-relax: install
	@$(BIN)/python -m tests.benchmarks.relax.table --write

bench-render: install
	@$(BIN)/python -m tests.benchmarks.render.table --write

bench-runner: install
	@$(BIN)/python -m tests.benchmarks.runner.table --write

bench-training: install
	@TF_NUM_INTRAOP_THREADS=1 $(BIN)/python -m tests.benchmarks.training.input --write

bench-update: install
	@$(BIN)/python -m tests.benchmarks.update.table --write

bench-storage: install
	@$(BIN)/python -m tests.benchmarks.storage.table

accuracy: install
	@$(BIN)/python -m tests.accuracy.match_table
	@$(BIN)/python -m tests.accuracy.tuning
	@$(BIN)/python -m tests.accuracy.relax_table --write
	@$(BIN)/python -m tests.accuracy.sigma_table --write
	@$(BIN)/python -m tests.accuracy.drift

faults: install
	@$(BIN)/python -m tests.faults.table

chaos: install
	@$(BIN)/python -m tests.chaos.soak --minutes 30 --seed $(or $(SEED),1) --write

up down: install
	@$(BIN)/petalign $@

lock: install
	@$(BIN)/python -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.12 \
	    --no-emit-index-url --quiet --output-file requirements.lock

clean:
	@rm -rf $(VENV) $(VENV_BENCH) alignment/native/*.so inference/native/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
