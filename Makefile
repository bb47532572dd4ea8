# `make demo` shows the main job on real data, `make test` checks the rest, `make fast` is for work in progress.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_FAMILIES := AirNext,BagNet,ComplexNet,DenseNet,ICNet,MobileNetV3,ShuffleNet,SqueezeNet-2
DEMO := --archive generated/demo.db
# Tests run side by side; those of one file, or of one group (tests/conftest.py), stay in one process.
WORKERS ?= 2
# Compiled modules are kept, whatever the environment says: two workers that compile all tests anew take twice as long.
unexport PYTHONDONTWRITEBYTECODE
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

.PHONY: demo docs fast lowest test test-slow measure lint clean

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nngen needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dashboard,dev,docs,eval,export,frame,llm,ray,report,serve,tpe]'
	@touch $@

demo: $(BIN)/.installed
	$(BIN)/nngen lemur fetch
	$(BIN)/nngen campaign run demo $(DEMO) --families $(DEMO_FAMILIES) --size 12 --sampler stratified \
		--dataset digits --epochs 2 --batch 32 --lr 0.003 --seed 0
	$(BIN)/nngen leaderboard demo $(DEMO)
	$(BIN)/nngen report demo $(DEMO) --out generated/demo.html

# For work in progress: no network, no workers; about a minute and a half on two cores.
fast: $(BIN)/.installed-dev
	$(PYTEST) -m "not (slow or corpus or rehearsal or long or network or engine)"

test: $(BIN)/.installed-dev
	$(PYTEST) -m "not (slow or corpus or rehearsal)"

test-slow: $(BIN)/.installed-dev
	$(PYTEST) -m "slow or corpus or rehearsal"

# The fast tests with the lowest version of each dependency that pyproject.toml allows, in an environment of its own.
lowest:
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) -c "import re, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		needed = sum(p['optional-dependencies'].values(), p['dependencies']); \
		print(*sorted({re.sub(r'>=([\w.]+).*', r'==\1', one) for one in needed if '>=' in one}), sep='\n')" \
		> .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-lowest/lowest.txt \
		--editable '.[dashboard,dev,frame,llm,report,tpe]'
	.venv-lowest/bin/python -m pytest -m "not (slow or corpus or rehearsal or long or network or engine)"

# The documentation site; builds without a network, and a warning fails.
docs: $(BIN)/.installed-dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs $(WORKERS) docs generated/docs

measure: $(BIN)/.installed-dev
	$(BIN)/python eval/measure_code.py

lint: $(BIN)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .venv-lowest generated/demo.db* generated/demo.html generated/docs docs/reference docs/measurements
