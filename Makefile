# Everything below works from a clean clone with Python 3.11 or newer and pip; `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
LOG := $(VENV)/install.log
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PROJECTS := pyproject.toml emoji_world/pyproject.toml constraints.txt

SEED ?= 0
OUT ?= out/demo
PROMPTS := "a dog to the left of a teddy bear" "a cat above a pizza"

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

demo: $(STAMP) ## steer the small emoji model and leave the pictures in out/demo (SEED=0, OUT=out/demo)
	@echo "Making pictures with the small emoji model, unsteered and steered from the same noise ..."
	@$(BIN)/learn-to-steer generate $(PROMPTS) --model sd:emoji --seed $(SEED) --images 1 --out $(OUT)

test: check ## the checks and the tests, without the slow ones
	@echo "Tests ..."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m "not slow"

test-all: check ## the checks and all tests, the slow ones too
	@echo "All tests ..."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

check: $(DEV_STAMP) ## format, lint, types, and who may import whom
	@echo "Format and lint ..."
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@echo "Types (a minute the first time) ..."
	@$(BIN)/mypy --no-error-summary
	@echo "Imports ..."
	@$(BIN)/lint-imports --no-logo > $(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }

$(STAMP): $(PROJECTS) | $(BIN)/python
	@echo "Installing into $(VENV) (1 to 6 GB, most of it torch; a few minutes, once) ..."
	@$(PIP) install -c constraints.txt -e . -e ./emoji_world > $(LOG) 2>&1 || \
		{ tail -n 25 $(LOG); echo "The installation failed; the whole log is in $(LOG)."; exit 1; }
	@touch $@
	@echo "Installed."

$(DEV_STAMP): $(PROJECTS) | $(BIN)/python
	@echo "Installing into $(VENV), with the tools for checks and tests (1 to 6 GB, most of it torch) ..."
	@$(PIP) install -c constraints.txt -e '.[dev]' -e ./emoji_world > $(LOG) 2>&1 || \
		{ tail -n 25 $(LOG); echo "The installation failed; the whole log is in $(LOG)."; exit 1; }
	@touch $@ $(STAMP)
	@echo "Installed."

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@mkdir -p $(VENV)
	@{ $(PYTHON) -m venv $(VENV) || \
		{ $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install pip; }; } > $(LOG) 2>&1 || \
		{ tail -n 25 $(LOG); rm -f $@; echo "No virtual environment could be made; the whole log is in $(LOG)."; exit 1; }
