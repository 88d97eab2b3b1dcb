# Makes the environment and the build, and runs the demo, the tests and the linters. Needs python3 (3.10 or newer), make
# and a C++ compiler. Everything else is installed into .venv in this folder, once.
#
#   make test TORCH=torch==2.11.0     with another torch

PYTHON ?= python3
TORCH ?= torch==2.13.0
CXX_FOUND = $(firstword $(CXX) g++)

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# The oldest releases that are supported together (.ci/requirements-oldest.txt). Old wheels of DGL need Python 3.11 at
# most.
OLDEST := .venv-oldest
PYTHON_OLDEST ?= python3.11
SOURCES := $(shell find csrc -type f 2>/dev/null) setup.py pyproject.toml gnna_plugin/_version.py

CLANG_TIDY := clang-tidy==23.1.4

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest lint ruff format types tidy docs figures build dist wheels environment tools clean

help:
	@echo "make demo          show what the plug-in does, in two minutes (the first time plus 5 to 15 minutes of installation)"
	@echo "make test          run all tests that this machine can run (GNNA_DATA=folder adds real graphs)"
	@echo "make test-oldest   run the tests with the oldest torch, PyG and DGL, in $(OLDEST) (Python 3.10 or 3.11)"
	@echo "make lint          check the Python files with ruff and mypy, and the C++ files with clang-format"
	@echo "make tidy          look for mistakes in the C++ files with clang-tidy (minutes)"
	@echo "make docs          build the documentation as build/docs/index.html, in a few seconds"
	@echo "make figures       draw the charts and write the tables of README.md and docs/ from docs/results, in seconds"
	@echo "make build         make only the environment and the compiled library"
	@echo "make dist          make a source distribution, and from it a wheel for $(TORCH), in dist/ (minutes: it compiles anew)"
	@echo "make wheels        make a wheel for each minor release of torch from 2.11 on (about ten minutes and 6 GB each);"
	@echo "                   TORCHES='2.12.1 2.13.0' selects the releases, GNNA_CUDA=0 leaves CUDA out"
	@echo "make clean         remove what was built, $(VENV) and $(OLDEST)"
	@echo "TORCH=torch==X.Y.Z selects another torch, PYTHON=python3.12 another Python"

demo: build
	$(PY) -m gnna_plugin demo

test: build
	$(PY) -m pytest $(PYTEST_ARGS)

# The package is installed instead of built in place, because the library in this folder is built for the torch in
# $(VENV). The tests run from tests/, so that they import the installed package.
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

# The files that only a torch with CUDA can compile are left out.
tidy: environment
	@$(PIP) install --quiet $(CLANG_TIDY)
	@ls csrc/decide/*.cpp csrc/cpu/*.cpp csrc/torch/*.cpp csrc/torch/*/*.cpp | grep -v /cuda_ | xargs -P $$(nproc) -n 1 sh -c \
	  '$(VENV)/bin/clang-tidy --quiet "$$1" -- -std=c++20 -Icsrc/include -Icsrc -Icsrc/torch \
	    $$($(PY) -c "import torch; p = torch.__path__[0] + \"/include\"; print(\"-isystem\", p, \"-isystem\", p + \"/torch/csrc/api/include\")") 2>/dev/null' sh

# mypy names modules by their folders. It therefore runs in a folder where adapters/ is gnna_plugin/adapters, as in an
# installation.
types: environment
	@rm -rf build/types/gnna_plugin && mkdir -p build/types/gnna_plugin
	@ln -s $(CURDIR)/gnna_plugin/* $(CURDIR)/adapters build/types/gnna_plugin/
	cd build/types && ../../$(PY) -m mypy --config-file ../../pyproject.toml -p gnna_plugin

# Links and anchors are checked. The pages use nothing from the network.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict
	@echo "built build/docs/index.html"

figures: $(VENV)/.docs
	$(PY) benchmarks/figures.py

# Neither needs torch, so that the pages can be built in an environment that has only these tools.
$(VENV)/.docs: .ci/requirements-docs.txt | $(VENV)/.torch
	@echo "installing the tools of the documentation into $(VENV): only once, about half a minute"
	@$(PIP) install --quiet -r .ci/requirements-docs.txt
	@touch $@

# The wheel is built from the source distribution, so that a file that is missing there is noticed. Its version names the
# torch that it fits.
dist: environment
	@rm -rf dist/*.tar.gz
	@$(PY) -W ignore setup.py --quiet sdist
	@GNNA_LOCAL_VERSION=1 $(PIP) wheel --quiet --no-build-isolation --no-deps --wheel-dir dist dist/*.tar.gz
	@ls -l dist

wheels: tools
	@PYTHON=$(PYTHON) .ci/wheels $(TORCHES)

build: $(VENV)/.built
environment: $(VENV)/.stamp

# The file .torch holds the value of TORCH. It is written again only if TORCH changes; then the environment is updated.
ifneq ($(shell cat $(VENV)/.torch 2>/dev/null),$(TORCH))
.PHONY: $(VENV)/.torch
endif
$(VENV)/.torch: | tools
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment: apt install python3-venv, or try make PYTHON=..."; exit 1; }
	@echo '$(TORCH)' > $@

$(VENV)/.stamp: $(VENV)/.torch pyproject.toml setup.py .ci/requirements.txt
	@echo "installing $(TORCH) and the tools into $(VENV): only once; a download takes a few minutes"
	@$(PIP) install --quiet $(TORCH) -r .ci/requirements.txt
	@touch $@

$(VENV)/.built: $(VENV)/.stamp $(SOURCES)
	@echo "compiling the library: 2 to 10 minutes the first time, later only the files that changed"
	@$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	@$(PY) -c "from gnna_plugin._build_info import INFO as i; print('built for torch', i['torch'] + ': CUDA', i['cuda'] or 'no, ' + i['reason'])"
	@touch $@

# Checks the tools that must be there, before anything is downloaded.
tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "gnna_plugin needs Python 3.10 or newer as $(PYTHON): install it, or give its name: make PYTHON=python3.12"; exit 1; }
	@command -v $(CXX_FOUND) >/dev/null || { \
	  echo "gnna_plugin needs a C++ compiler: apt install g++, or give the name of another one: make CXX=clang++"; exit 1; }

clean:
	rm -rf build dist *.egg-info gnna_plugin/*.so gnna_plugin/_build_info.py $(VENV) $(OLDEST) .venv-wheels
