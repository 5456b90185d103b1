# Two commands matter: `make demo` and `make test`. Both set everything up first.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
STAMP := $(VENV)/.ready
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

# Where Python is told to leave no bytecode, every process would compile PyTorch anew (9 s each).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test lint types docs benchmarks lock clean

setup: $(STAMP)  ## make .venv from the hashed lock (fast when nothing changed)

$(STAMP): requirements.lock pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found. Set PYTHON=/path/to/python3."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: setup  ## draw phantoms, segment them, refine their rough masks, evaluate, report
	rm -rf runs/demo
	$(BIN)/ultrarefiner data phantom --num 24 --seed 0 --out runs/demo/data
	$(BIN)/ultrarefiner refine --images runs/demo/data/images --coarse runs/demo/data/coarse --out runs/demo \
	    --checkpoint nano --options.save_8bit_probabilities true
	@$(BIN)/ultrarefiner evaluate --manifest runs/demo/data/manifest.csv --preds runs/demo \
	    --baseline runs/demo/data/coarse --out runs/demo/eval.json
	$(BIN)/ultrarefiner predict --images runs/demo/data/images --checkpoint nano --out runs/demo/images_alone
	@$(BIN)/ultrarefiner evaluate --manifest runs/demo/data/manifest.csv --preds runs/demo/images_alone \
	    --baseline runs/demo/images_alone/coarse --out runs/demo/images_alone/eval.json
	$(BIN)/ultrarefiner report runs/demo/images_alone --out runs/demo/images_alone/report.html
	$(BIN)/ultrarefiner report runs/demo --out runs/demo/report.html
	@echo "open runs/demo/report.html, and runs/demo/images_alone/report.html for masks from images alone"

test: setup lint types  ## everything that CI runs, in the order of tests/conftest.py
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

types: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/sphinx-build -W -b html docs docs/_build

benchmarks: setup
	cd benchmarks && for name in metrics refine audit prompts roi pipeline corruption attention phase1 phase2; do ../$(BIN)/python $$name.py || exit 1; done

lock:  ## resolve anew (needs a package index)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --extra dev --extra dicom --extra docs --extra imagenet --extra paper --extra ray pyproject.toml -o requirements.lock --quiet

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build
