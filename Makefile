# Every target sets up what it needs; the environment lives in .venv of this checkout.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up
INPUTS := pyproject.toml constraints.txt constraints-cpu.txt

# The first Python that every dependency has a wheel for, else whatever python3 is.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
  && { echo $$p; exit; }; done; echo python3)

# cpu: the tested build of torch. cuda: the one pip takes, for a GPU. auto: cuda where a GPU answers.
TORCH  ?= auto
GPU    := $(if $(filter auto,$(TORCH)),$(shell nvidia-smi -L 2>/dev/null | head -n 1),)
PINS   := $(if $(filter cuda,$(TORCH))$(GPU),constraints.txt,constraints-cpu.txt)

.PHONY: help setup demo test check fmt long bench browser cluster fault fault-short nodes force
.DEFAULT_GOAL := help

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make .venv with everything in it; TORCH=cpu or TORCH=cuda where auto errs

demo: $(STAMP) ## watch it work, Ctrl-C ends; SECONDS=20, INPUT=video.mp4, ARGS=--json
	$(BIN)/percipio demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(INPUT),--input "$(INPUT)") $(ARGS)

test: check ## run the checks and the tests (under 5 minutes on 2 cores); ARGS="-k name"
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadscope $(ARGS)

check: $(STAMP) ## lint, formatting, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fmt: $(STAMP) ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

long: $(STAMP) ## the statistics over many samples, 4 minutes
	$(BIN)/python -m pytest -m long $(ARGS)

bench: $(STAMP) ## hold the score engine to its rates and size, then print them, 3 minutes
	$(BIN)/python -m pytest -m bench -p no:randomly -s tests/bench $(ARGS)
	$(BIN)/python -m benchmarks.scoring

cluster: $(STAMP) ## the tests that use a Redis, with a Redis Cluster instead, 2 minutes
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadscope --on-cluster \
	  tests/integration tests/contract $(ARGS)

fault: $(STAMP) ## kill, cut and fill things for an hour, write docs/delivery.md's table
	rm -f .fault.jsonl
	$(BIN)/python -m pytest -m fault -p no:randomly --fault-long --fault-table .fault.jsonl tests/fault $(ARGS)
	$(BIN)/python -m tests.fault.table .fault.jsonl docs/delivery.md

nodes: $(STAMP) ## kill Ray nodes, workers and the head on this machine, write docs/ray.md's table
	rm -f .nodes.jsonl
	$(BIN)/python -m pytest -m ray -p no:randomly -s --fault-table .nodes.jsonl tests/ray $(ARGS)
	$(BIN)/python -m tests.fault.table .nodes.jsonl docs/ray.md

browser: $(STAMP) ## look at the page with a real Chromium, 3 minutes
	$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

fault-short: $(STAMP) ## the same in under 10 minutes
	$(BIN)/python -m pytest -m fault --numprocesses auto --maxprocesses 4 tests/fault $(ARGS)

$(STAMP): $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv $(VENV) \
	  || { rm -rf $(VENV); echo "no venv: apt install python3-venv"; exit 2; }
	@echo "Installing into $(VENV), with $(PINS): minutes the first time"
	@$(BIN)/python -m pip install --quiet --constraint $(PINS) --editable '.[dev]'
	@echo "Compiling the scoring kernels, once: half a minute"
	@$(BIN)/python -c 'from pipeline.scoring.engine import warm_up; warm_up()'
	@touch $@

# Asked for by name, a build of torch is installed even if everything is set up.
ifneq ($(origin TORCH),file)
$(STAMP): force
endif
