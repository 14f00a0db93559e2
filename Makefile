# Everything below works from a clean clone with Python 3.11 or newer and pip; `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

SEED ?= 0
OUT ?= out/demo
PROMPTS := "a dog to the left of a teddy bear" "a cat above a pizza"

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

demo: $(STAMP) ## steer the small emoji model and leave the pictures in out/demo (SEED=0, OUT=out/demo)
	@echo "Making pictures with the embedded emoji model, unsteered and steered from the same noise ..."
	@$(BIN)/learn-to-steer generate $(PROMPTS) --model sd:emoji --seed $(SEED) --images 1 --out $(OUT)

test: check ## the checks and the tests, without the slow ones
	@echo "Tests ..."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m "not slow"

test-all: check ## the checks and all tests, the slow ones too
	@echo "All tests ..."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

check: $(STAMP) ## format, lint, types, and who may import whom
	@echo "Format and lint ..."
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@echo "Types (a minute the first time) ..."
	@$(BIN)/mypy --no-error-summary
	@echo "Imports ..."
	@$(BIN)/lint-imports --no-logo > $(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV) (1 to 6 GB, most of it torch; a few minutes, once) ..."
	@mkdir -p $(VENV)
	@{ $(PYTHON) -m venv $(VENV) || \
		{ $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }; } \
		> $(LOG) 2>&1 && $(PIP) install -c constraints.txt -e '.[dev]' >> $(LOG) 2>&1 || \
		{ tail -n 25 $(LOG); echo "The installation failed; the whole log is in $(LOG)."; exit 1; }
	@touch $(STAMP)
	@echo "Installed."
