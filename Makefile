# Two commands do everything: `make demo` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BROWSER := tests/report/test_browser.py tests/console/test_jupyterlab.py

.DEFAULT_GOAL := help
.PHONY: help setup demo model test test-kernels lint types unit docs notebook models browser bench engines engines-full llama-cpp study newcomer demo-model vectors clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(INSTALLED)  ## make the virtual environment and install everything pinned

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing what constraints.txt pins into $(VENV): this takes some minutes and prints nothing until it is done."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)  ## record, choose, steer and judge, on SmolLM2-135M-Instruct
	$(BIN)/steer demo

model: $(INSTALLED)  ## fetch the real model that tests and demo use, into a cache outside the environment
	$(BIN)/python -c 'from steer.demo import smollm2; smollm2.model_folder()'

test: lint types unit docs notebook  ## everything that guards the project

test-kernels: $(INSTALLED)  ## the numerical tests under other kernels and numbers of threads; takes hours
	$(BIN)/python -m tests.kernels

lint: $(INSTALLED)  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## strict types
	$(BIN)/mypy

unit: $(INSTALLED) model  ## tests, doctests, the README's code and commands
	$(BIN)/pytest -n 2 -q $(addprefix --ignore=,$(BROWSER))

docs: $(INSTALLED)  ## the documentation, strictly
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

notebook: $(INSTALLED) model  ## run the notebooks and check their numbers
	$(BIN)/python -m tests.notebooks

models: $(INSTALLED)  ## try every model type of transformers as a tiny model, and write docs/models.md
	$(BIN)/python -m tests.models

browser: $(INSTALLED)  ## look at a report, and at the console in JupyterLab, in headless Chromium, which is installed where that is allowed
	command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; }
	STEER_BROWSER=required $(BIN)/pytest -q $(BROWSER)

bench: $(INSTALLED)  ## speed and memory against peers, in an environment of its own
	$(MAKE) -C tests/bench run PYTHON=$(abspath $(BIN)/python)

engines:  ## steer a real vLLM server, in an environment of its own that is kept outside the clone
	$(MAKE) -C tests/engines run PYTHON=$(PYTHON)

engines-full:  ## the same with every architecture, tensor parallelism, a long run and speed; takes hours
	$(MAKE) -C tests/engines full PYTHON=$(PYTHON)

llama-cpp: $(INSTALLED) model  ## control vectors in llama.cpp itself, which is built from source once
	$(MAKE) -C tests/llama_cpp run PYTHON=$(abspath $(BIN)/python)

study: $(INSTALLED) model  ## measure what docs/study lacks, on the real model; takes CPU-hours; DATA=FOLDER of published pairs
	$(BIN)/python -m notebooks.study make $(if $(DATA),--data $(DATA),cheerful terse formal avoidance)
	$(BIN)/python -m notebooks.study test $(if $(DATA),--data $(DATA),cheerful terse formal avoidance)

newcomer: $(INSTALLED)  ## the quick start in a fresh environment, timed
	$(BIN)/python -m tests.newcomer

demo-model: $(INSTALLED)  ## train the demo model again, from its seed
	$(BIN)/python -m tests.demo_model.train

vectors: $(INSTALLED) model  ## make the real model's vectors and their cards again; takes minutes of CPU time
	$(BIN)/python -m vectors.make_smollm2

clean:  ## remove what the targets made
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
