# Everything runs in .venv, made from pyproject.toml and constraints.txt alone.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# A worker on each core with one torch thread; byte code is kept, since tests start many processes.
TESTS := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not proof" \
  -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

LOWEST := .venv-lowest/bin/python

.PHONY: demo test quick lowest env check proofs benchmarks clean

demo: .venv/.user
	$(BIN)/vitral demo $(if $(OUT),--out $(OUT))

test: check
	$(TESTS)

# after every change: no whole trainings, and none of the libraries that are compared with
quick: .venv/.dev
	$(TESTS) tests/unit tests/test_house.py

# quick tests with the lowest versions that pyproject.toml allows. Their warnings are of how those
# versions use one another. torch 2.6 comes for CUDA where there is no other build: 5 GB. Left out:
# two tests of damaged files that hold what Pillow 13 makes of them.
lowest: .venv-lowest/.done
	OMP_NUM_THREADS=1 $(LOWEST) -m pytest -m "not proof" -n auto --maxprocesses 8 --dist loadfile \
	  --no-loadscope-reorder -o filterwarnings=default -W ignore tests/unit \
	  --deselect tests/unit/data/test_check.py::test_what_cannot_be_decoded_counts_in_no_class \
	  --deselect tests/unit/images/test_preprocess.py::test_real_bad_files_give_an_image_or_a_sentence

.venv-lowest/.done: pyproject.toml constraints-lowest.txt
	test -x $(LOWEST) || $(PYTHON) -m venv .venv-lowest
	$(LOWEST) -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt \
	  -e ".[heif]" pytest pytest-xdist hypothesis
	touch $@

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# with the authors' own libraries, which are large
proofs: .venv/.oracles
	$(BIN)/python benchmarks/proofs.py

# On an otherwise idle machine; PHOTOS=folder adds one epoch on real photographs, and two hours of
# learning from scratch beside timm and of transfer.
benchmarks: .venv/.dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/first_runs.py $(if $(PHOTOS),--photos $(PHOTOS))
	$(BIN)/python benchmarks/forward.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/performance.py
	$(BIN)/python benchmarks/loading.py $(if $(PHOTOS),--photos $(PHOTOS))
	$(BIN)/python benchmarks/learning.py
	$(if $(PHOTOS),$(BIN)/python benchmarks/scratch.py $(PHOTOS))
	$(if $(PHOTOS),$(BIN)/python benchmarks/transfer.py $(PHOTOS))

env: .venv/.dev

.venv/.user: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing vitral into .venv (a few minutes, once)"
	$(PIP) -e .
	touch $@

.venv/.dev: .venv/.user
	$(PIP) -e ".[dev]"
	touch $@

.venv/.oracles: .venv/.dev
	$(PIP) -e ".[oracles]"
	touch $@

clean:
	rm -rf .venv .venv-lowest
