# A fresh clone to labelled recordings: make demo. To a green test suite: make test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo demo-checkpoint test lint constraints clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python examples/demo.py

# What the demo labels with: its corpus, its training, its card. One thread: the same bits again.
demo-checkpoint: install
	rm -rf build/demo-corpus build/demo-checkpoint
	$(BIN)/python examples/make_corpus.py --training build/demo-corpus
	OMP_NUM_THREADS=1 $(BIN)/python -m jobs.train --config examples/train.yaml
	rm -rf examples/checkpoint
	cp -r build/demo-checkpoint/best examples/checkpoint

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# After a change of pyproject.toml: installs what it asks for today, and writes down what that is.
constraints:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0 --editable '.[dev]' --upgrade
	(sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//') > .constraints
	mv .constraints constraints.txt

clean:
	rm -rf .venv build demo-output .mypy_cache .ruff_cache .pytest_cache
