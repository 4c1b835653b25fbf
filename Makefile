# Everything here works in its own virtual environment, .venv, made on first use.
#   make demo    the whole method on a tiny model, in minutes on a CPU
#   make test    all tests: C++ and Python, with a short run of the demo's chain
#   make bench   the benchmark tables
#   make lint    linting, formatting and types, checked;  make format  applies what can be applied
# PYTHON chooses the interpreter, TORCH the torch requirement (on a GPU machine e.g. TORCH="torch>=2.11").
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc tad_ext tools -type f -not -name '*.so' -not -path '*/__pycache__/*') setup.py pyproject.toml
PYTHON_FOLDERS := tad_ext python_tests bench docs tools setup.py conftest.py
CPP_FILES := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.inl')

.PHONY: demo test test-cpp test-python test-smoke bench lint format clean

demo: $(VENV)/installed
	$(BIN)/tad demo --output demo_output

test: test-cpp test-python test-smoke

test-cpp: $(VENV)/test-tools
	$(BIN)/cmake -S . -B build/cmake -DTAD_SANITIZE=address,undefined
	$(BIN)/cmake --build build/cmake --parallel 2
	$(BIN)/ctest --test-dir build/cmake --output-on-failure

test-python: $(VENV)/test-tools
	$(BIN)/python -m pytest

test-smoke: $(VENV)/installed
	$(BIN)/tad demo --smoke --output build/smoke

bench: $(VENV)/test-tools
	$(BIN)/python -m pytest bench

lint: $(VENV)/lint-tools
	$(BIN)/ruff check $(PYTHON_FOLDERS)
	$(BIN)/ruff format --check $(PYTHON_FOLDERS)
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/mypy

format: $(VENV)/lint-tools
	$(BIN)/ruff check --fix $(PYTHON_FOLDERS)
	$(BIN)/ruff format $(PYTHON_FOLDERS)
	$(BIN)/clang-format -i $(CPP_FILES)

clean:
	rm -rf $(VENV) build dist *.egg-info tad_ext/*.so

$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	touch $@

$(VENV)/installed: $(VENV)/torch $(SOURCES)
	$(BIN)/python -m pip install .
	touch $@

$(VENV)/test-tools: $(VENV)/installed
	$(BIN)/python -m pip install --quiet pytest hypothesis cmake
	touch $@

$(VENV)/lint-tools: $(VENV)/installed
	$(BIN)/python -m pip install --quiet ruff mypy "clang-format>=20" types-PyYAML types-tqdm
	touch $@
