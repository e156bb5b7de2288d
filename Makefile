# Two commands do all the set-up there is: `make compare` runs the main job, `make test` passes the tests.
# Needs: make, python3 (3.10 or newer) with its venv module. Everything else goes into $(VENV).

PYTHON ?= python3
VENV ?= .venv
LAYERS ?= 0,8,16
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.mpcbench-installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup compare test bench clean

help: ## List what make can do here
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' Makefile
	@echo "Variables: LAYERS ($(LAYERS)), ARGS (more arguments), PYTHON ($(PYTHON)), VENV ($(VENV))."

setup: $(STAMP) ## Prepare the virtual environment, and nothing else
	@echo "Ready: $(BIN)/mpcbench --help"

# The stamp is written last, so that an installation that failed or was interrupted is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "mpcbench needs Python 3.10 or newer, $(PYTHON) is not: make ... PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "Making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); } || \
		{ echo "No virtual environment: install Python's venv module (Debian, Ubuntu: package python3-venv)." >&2; exit 1; }
	@echo "Installing mpcbench and what it needs into $(VENV); the first time this takes some minutes."
	@$(BIN)/python -m pip install -c constraints.txt -e '.[test]' || \
		{ echo "The installation failed: pip's reason stands above. Mend it and call make again." >&2; exit 1; }
	@touch $@

compare: $(STAMP) ## Run the main job: SmolLM2-135M with LAYERS polynomial layers
	@$(BIN)/mpcbench compare --layers $(LAYERS) $(ARGS)

test: $(STAMP) ## Check the style and run all tests (ARGS="-k word" for some)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest $(ARGS)

bench: $(STAMP) ## Run the benchmarks and write results/benchmarks.md and .json
	@mkdir -p results
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-json results/benchmarks.json $(ARGS)
	@{ $(BIN)/python -m tests.benchmarks.table results/benchmarks.json && echo && \
		$(BIN)/python -m tests.benchmarks.stock --beside results/benchmarks.json; } | tee results/benchmarks.md

clean: ## Remove the virtual environment and what tools leave behind; keep results and the model cache
	test ! -e $(VENV)/pyvenv.cfg || rm -rf $(VENV)
	rm -rf build dist .pytest_cache .ruff_cache .benchmarks *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
