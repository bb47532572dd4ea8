# Two commands for a stranger: `make demo` shows the main job on real data, `make test` proves the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_FAMILIES := AirNext,BagNet,ComplexNet,DenseNet,ICNet,MobileNetV3,ShuffleNet,SqueezeNet-2
DEMO := --archive generated/demo.db

.PHONY: demo test test-corpus lint clean

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nngen needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[report]'
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,eval,export,llm,ray,report,serve]'
	@touch $@

demo: $(BIN)/.installed
	$(BIN)/nngen lemur fetch
	$(BIN)/nngen campaign run demo $(DEMO) --families $(DEMO_FAMILIES) --size 8 --sampler stratified \
		--dataset digits --epochs 3 --batch 32 --lr 0.003 --seed 0
	$(BIN)/nngen leaderboard demo $(DEMO)
	$(BIN)/nngen report demo $(DEMO) --out generated/demo.html

test: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -m "not corpus"

test-corpus: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -m corpus tests/isolation

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) generated/demo.db* generated/demo.html
