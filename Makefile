# One command each for a newcomer: the environment, the build, and what runs on top of them. Needs python3 (3.10 or newer),
# make and a C++ compiler; everything else goes into .venv here. What is already there is not made again.
#
#   make test TORCH=torch==2.11.0     the same with another torch

PYTHON ?= python3
TORCH ?= torch==2.13.0
CXX_FOUND = $(firstword $(CXX) g++)

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# The oldest releases that are supported together (.ci/requirements-oldest.txt). DGL's old wheels end at Python 3.11.
OLDEST := .venv-oldest
PYTHON_OLDEST ?= python3.11
SOURCES := $(shell find csrc -type f 2>/dev/null) setup.py pyproject.toml gnna_plugin/_version.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest lint ruff format types build environment tools clean

help:
	@echo "make demo    what the plug-in does, on a small graph"
	@echo "make test    all tests that this machine can run (GNNA_DATA=folder adds the real graphs)"
	@echo "make test-oldest    the same beside the oldest torch, PyG and DGL, in $(OLDEST) (Python 3.10 or 3.11)"
	@echo "make lint    ruff and mypy over the Python files, clang-format over the C++"
	@echo "make build   the environment and the compiled library only"
	@echo "make clean   removes what was built, and $(VENV)"
	@echo "TORCH=torch==X.Y.Z picks another torch, PYTHON=python3.12 another Python"

demo: build
	$(PY) -m gnna_plugin demo

test: build
	$(PY) -m pytest $(PYTEST_ARGS)

# Installed, not in place: the library in this folder belongs to $(VENV)'s torch, and the tests must find the other one.
test-oldest: $(OLDEST)/.stamp
	$(OLDEST)/bin/python -m pip --disable-pip-version-check install --quiet --no-build-isolation --no-deps .
	cd tests && DGLBACKEND=pytorch GNNA_CUDA=0 ../$(OLDEST)/bin/python -m pytest -c ../pyproject.toml $(PYTEST_ARGS) .

$(OLDEST)/.stamp: .ci/requirements-oldest.txt | tools
	@test -x $(OLDEST)/bin/python || $(PYTHON_OLDEST) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip --disable-pip-version-check install --quiet -r .ci/requirements-oldest.txt
	@touch $@

lint: ruff format types

ruff: environment
	$(PY) -m ruff check .

format: environment
	find csrc -type f | xargs $(VENV)/bin/clang-format --dry-run --Werror

# mypy names modules by their folders, so it runs where adapters/ is gnna_plugin/adapters, as in an installation.
types: environment
	@rm -rf build/types/gnna_plugin && mkdir -p build/types/gnna_plugin
	@ln -s $(CURDIR)/gnna_plugin/* $(CURDIR)/adapters build/types/gnna_plugin/
	cd build/types && ../../$(PY) -m mypy --config-file ../../pyproject.toml -p gnna_plugin

build: $(VENV)/.built
environment: $(VENV)/.stamp

# The wish for a torch is a file, so that another one on the command line is noticed; it changes only when the wish does.
ifneq ($(shell cat $(VENV)/.torch 2>/dev/null),$(TORCH))
.PHONY: $(VENV)/.torch
endif
$(VENV)/.torch: | tools
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { \
	  echo "Python could not make a virtual environment: apt install python3-venv, or name another one: make PYTHON=..."; exit 1; }
	@echo '$(TORCH)' > $@

$(VENV)/.stamp: $(VENV)/.torch pyproject.toml setup.py .ci/requirements.txt
	@echo "installing $(TORCH) and the tools into $(VENV): once, and a few minutes where they must be downloaded"
	@$(PIP) install --quiet $(TORCH) -r .ci/requirements.txt
	@touch $@

$(VENV)/.built: $(VENV)/.stamp $(SOURCES)
	@echo "compiling the library: a minute or two the first time, then only what changed"
	@$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	@$(PY) -c "from gnna_plugin._build_info import INFO as i; print('built for torch', i['torch'] + ': CUDA', i['cuda'] or 'no, ' + i['reason'])"
	@touch $@

# Said in one sentence each, before anything is downloaded.
tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "gnna_plugin needs Python 3.10 or newer as $(PYTHON): install it, or name it: make PYTHON=python3.12"; exit 1; }
	@command -v $(CXX_FOUND) >/dev/null || { \
	  echo "gnna_plugin needs a C++ compiler: apt install g++ (or name one: make CXX=clang++)"; exit 1; }

clean:
	rm -rf build dist *.egg-info gnna_plugin/*.so gnna_plugin/_build_info.py $(VENV) $(OLDEST)
