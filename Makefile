# `make demo` and `make test` work in a fresh clone on Debian with git, make and Python 3.11 with venv.
PYTHON ?= python3
BIN := .venv/bin
RECIPES := $(basename $(notdir $(wildcard recipes/*.yaml)))

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-kill test-oldest lint format smoke wheel docs bench bench-serve bench-recbole soak clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# pip compiles on one core; compileall takes all of them. Without it the first command would compile what it imports, and
# every command would where PYTHONDONTWRITEBYTECODE is set: 0.4 s for a config error, 6 s for a run. Some packages carry
# files of other Pythons, which do not compile.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[demo,dev]'
	$(BIN)/python -m compileall -q -j 0 .venv/lib llmft > /dev/null || true
	@touch $@

demo: .venv/installed  ## the main job: install, fine-tune a small BERT on reviews, print its accuracy
	$(BIN)/llmft finetune +recipe=bert_textcls

# The budget is 20 minutes of processor time, which a noisy machine changes less than wall clock. With worksteal a worker
# takes whole files, so that what a file's tests share is made once.
test: SHELL := /bin/bash
test: .venv/installed  ## all tests but the slow ones, offline; prints the processor time that they took
	@TIMEFORMAT=$$'processor time: %U s user + %S s system; %R s of wall clock'; time $(BIN)/pytest -n 2 --dist worksteal

test-slow: .venv/installed  ## the tests that train for minutes
	$(BIN)/pytest -m slow

test-kill: .venv/installed  ## kill -9 at 20 random moments, 5 of them inside a save
	$(BIN)/pytest -m slow tests/faults/test_kill.py

.venv/oldest: .ci/oldest.txt .venv/installed
	rm -rf $@
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --target $@ -r $<
	@touch $@

# A run that is stopped and resumed ends as one that was not, bit for bit; and transformers has what our Trainer overrides.
test-oldest: .venv/oldest  ## training and resuming with the oldest supported transformers
	@export PYTHONPATH=$(CURDIR)/.venv/oldest; \
	$(BIN)/python -c 'import transformers as t; print(f"transformers=={t.__version__}")' | grep -Fxf - .ci/oldest.txt && \
	$(BIN)/pytest tests/training/test_trainer_contract.py tests/faults/test_resume.py \
		-k 'trainer_contract or bit_for_bit and random and not streamed'

lint: .venv/installed  ## style, types, and generated pages that are out of date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m llmft.config.docs --check

format: .venv/installed  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smoke: .venv/installed  ## every recipe on a tiny model and synthetic rows
	@set -e; for recipe in $(RECIPES); do \
		$(BIN)/llmft $$(sed -n 's/^command: //p' recipes/$$recipe.yaml) +recipe=$$recipe smoke=true; done

wheel: .venv/installed  ## dist/*.whl
	$(BIN)/python -m hatchling build -t wheel

docs: .venv/installed  ## docs/config.md and docs/config.schema.json, from the vocabulary
	$(BIN)/python -m llmft.config.docs

bench: .venv/installed  ## llmft beside transformers.Trainer and a bare loop: make bench DATA=FOLDER
	$(BIN)/python benchmarks/speed.py $(DATA) --rows 1600

# Beside the packages of .venv, so that both sides have the same onnxruntime, torch, and FastAPI.
.venv/peers: .venv/installed
	rm -rf $@
	$(BIN)/pip install --quiet --disable-pip-version-check --target $@ -c constraints.txt flask==3.1.3 litserve==0.2.19
	@touch $@

bench-serve: .venv/peers  ## llmft serve beside Flask, LitServe, and FastAPI, on an idle machine
	PYTHONPATH=$(CURDIR)/.venv/peers $(BIN)/python benchmarks/serve.py

# RecBole imports with Python 3.11 and these versions alone.
.venv/recbole/installed:
	python3.11 -m venv .venv/recbole
	.venv/recbole/bin/pip install --quiet --disable-pip-version-check recbole==1.2.1 numpy==1.26.4 pandas==2.3.3 \
		scipy==1.15.3 'setuptools<81' torch==2.14.1
	@touch $@

bench-recbole: .venv/installed .venv/recbole/installed  ## an epoch of BPR and SASRec beside RecBole's: minutes
	$(BIN)/python benchmarks/recbole.py

SECONDS := 3600
soak: .venv/installed  ## llmft serve under load for an hour: does its memory stay flat? make soak SECONDS=300
	$(BIN)/python benchmarks/serve.py --soak $(SECONDS)

clean:  ## remove what was built; .venv and outputs stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache
