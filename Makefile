# Every target makes the environment first when there is none: Python 3.10+ is all that is needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers
DOCS := .venv/.docs

.PHONY: bench test test-slow lint docs results robust paper readme speed clean

bench: $(READY)  ## train the default model on the embedded digits, attack it, print the table
	$(BIN)/robustrecon bench --attack pgd

test: $(READY) lint  ## lint, types and the fast tests, one process a core
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

test-slow: $(READY)  ## the long tests; those on real data need DATA_DIR
	$(BIN)/pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS)  ## the documentation in docs/_build/html, its tutorials executed; warnings are errors; minutes on 2 cores
	$(BIN)/sphinx-build -W --keep-going -n -d docs/_build/doctrees docs docs/_build/html

DATA_DIR ?= data
results: $(READY)  ## everything under results/, from nothing; about half an hour on 2 cores
	$(BIN)/robustrecon bench --attack fgsm --attack pgd --attack selective --log-x --out results
	$(BIN)/robustrecon bench --attack fgsm --attack pgd --attack selective --log-x --out results --data mnist --data-dir $(DATA_DIR)
	$(BIN)/robustrecon bench --attack fgsm --attack pgd --attack selective --log-x --out results --data mnist --data-dir $(DATA_DIR) --model robust/mnist --alpha 0.005
	$(MAKE) speed
	$(BIN)/python -m benchmarks.readme

WORKERS ?= 2
robust: $(READY)  ## everything under results/robust, from the shipped networks; hours on 2 cores, a killed run goes on
	$(BIN)/robustrecon bench --suite benchmarks/mnist.toml --data-dir $(DATA_DIR) --out results/robust --workers $(WORKERS)
	$(BIN)/robustrecon bench --suite benchmarks/mnist-l2.toml --data-dir $(DATA_DIR) --out results/robust/l2 --workers $(WORKERS)
	$(BIN)/robustrecon bench --suite benchmarks/digits.toml --out results/robust/digits --workers $(WORKERS)
	$(BIN)/python -m benchmarks.ablation --data mnist --data-dir $(DATA_DIR) --out results/robust
	$(BIN)/python -m benchmarks.readme

paper: $(READY)  ## everything under results/paper; over an hour on 2 cores, a killed run goes on
	$(BIN)/python -m benchmarks.paper --data-dir $(DATA_DIR) --out results/paper
	$(BIN)/python -m benchmarks.readme

readme: $(READY)  ## the tables of README and docs, from results/
	$(BIN)/python -m benchmarks.readme

speed: $(PEERS)  ## speed ratios against other libraries, measured in one run; about 4 minutes on 2 cores
	$(BIN)/python -m benchmarks.speed

clean:  ## the environment and the caches; models and results stay
	rm -rf .venv build docs/_build docs/gallery *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version), must be Python 3.10 or newer; set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	@touch $@

# adv-lib needs visdom, which comes as source only and does not build with a setuptools that has no pkg_resources.
$(PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "setuptools>=77,<81"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--no-build-isolation --editable ".[speed]"
	@touch $@
