# All targets work in a fresh clone and need Python 3.11 or newer with pip. `make` lists them.
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
PART ?=
FAULTS ?= 50
PROMPTS := "a turtle to the left of a bird" "a pizza above a robot"

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser test-all chaos check

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

demo: $(STAMP) ## generate images with the small emoji model, unsteered and steered (SEED=0 OUT=out/demo)
	@echo "Generating images with the small emoji model, unsteered and steered from the same noise ..."
	@$(BIN)/learn-to-steer generate $(PROMPTS) --model sd:emoji --seed $(SEED) --images 1 --out $(OUT)

test: check ## run the checks and all tests that are not slow
	@echo "Tests ..."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadgroup -m "not slow and not nlp and not browser"

test-browser: $(DEV_STAMP) ## test the web page in Debian's chromium
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m browser

test-all: check ## run the checks and all tests, with ten times as many examples in the fuzz tests
	@echo "All tests ..."
	@FUZZ=thorough OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadgroup

chaos: $(DEV_STAMP) ## stop collect, train, evaluate and generate 120 times and compare what they leave (SEED=0); with PART=ray: disturb verbs on a Ray cluster 50 times (FAULTS=50)
	@$(if $(filter ray,$(PART)),$(BIN)/python tests/chaos/ray_campaign.py --seed $(SEED) --faults $(FAULTS) --minutes 42 --out out/chaos-ray,$(BIN)/python tests/chaos/campaign.py --seed $(SEED) --kills 120 --minutes 40 --out out/chaos)

check: $(DEV_STAMP) ## check format, lint, types and import rules
	@echo "Format and lint ..."
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@echo "Types (the first run takes a minute) ..."
	@$(BIN)/mypy --no-error-summary
	@echo "Import rules ..."
	@$(BIN)/lint-imports --no-logo > $(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }

$(STAMP): $(PROJECTS) | $(BIN)/python
	@echo "Installing into $(VENV): 1 to 6 GB, most of it torch; a few minutes, only once ..."
	@$(PIP) install -c constraints.txt -e . -e ./emoji_world > $(LOG) 2>&1 || \
		{ tail -n 25 $(LOG); echo "The installation failed; the full log is $(LOG)."; exit 1; }
	@touch $@
	@echo "Installed."

$(DEV_STAMP): $(PROJECTS) | $(BIN)/python
	@echo "Installing into $(VENV), with the tools for checks and tests: 1 to 6 GB, most of it torch ..."
	@$(PIP) install -c constraints.txt -e '.[dev]' -e ./emoji_world > $(LOG) 2>&1 || \
		{ tail -n 25 $(LOG); echo "The installation failed; the full log is $(LOG)."; exit 1; }
	@touch $@ $(STAMP)
	@echo "Installed."

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed. If you have one, name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@mkdir -p $(VENV)
	@{ $(PYTHON) -m venv $(VENV) || \
		{ $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install pip; }; } > $(LOG) 2>&1 || \
		{ tail -n 25 $(LOG); rm -f $@; echo "The virtual environment could not be created; the full log is $(LOG)."; exit 1; }
