# Everything here works in its own virtual environment, .venv, made on first use.
#   make demo    the whole method on a tiny model, in minutes on a CPU
#   make test    all tests: C++ under sanitizers, Python, the CUDA kernels on the host, a short run of the demo's chain
#   make check   what takes few minutes of it: style and types, the CPU's C++ tests, the Python tests that are not slow
#   make paper   the paper's comparisons in miniature: one base model and one training seed, within an hour on two cores
#   make bench   the benchmark tables;  make report  puts the committed results into docs/
#   make lint    linting, formatting and types, checked;  make format  applies what can be applied
# PYTHON chooses the interpreter, TORCH the torch requirement (on a GPU machine e.g. TORCH="torch>=2.11"). Where nvcc is
# missing the check that needs it says so and passes; NVCC_CHECK=--require makes that an error.
PYTHON ?= python3
TORCH ?= torch==2.13.0
NVCC_CHECK ?=
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc tad_ext tools -type f -not -name '*.so' -not -name '*.txt' -not -path '*/__pycache__/*') setup.py pyproject.toml
PYTHON_FOLDERS := tad_ext python_tests bench docs tools setup.py conftest.py
CPP_FILES := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh')

TESTS := test-cpp test-races test-planted-bugs test-nvcc test-python test-slow test-cuda-on-host test-smoke
CHECKS := lint check-cpp test-python
UNCHANGED := $(PYTHON) tools/unchanged.py
# What CMake builds: all of csrc but the bindings.
KERNELS := 'csrc/[!b]*/**/*.[ch]*' 'csrc/[!b]*/**/*.inl' CMakeLists.txt
PACKAGE := 'csrc/**/*.[chi]*' 'tad_ext/**/*.*' 'python_tests/**/*.*' 'bench/**/*.py' 'tools/*.py' conftest.py setup.py pyproject.toml
# Of python_tests/helpers, what the operators' tests and conftest.py import (python_tests/test_unchanged.py compares).
OP_HELPERS := awkward_sizes every_operator op_checks operator_calls out_of_range wrong_calls
# Another processor runs other CPU kernels, and another compiler makes others: x86_64-12.2.0-AVX2-AVX512F.
MACHINE = $(shell $(CXX) -march=native -dM -E -x c++ /dev/null \
	| sed -nE 's/.* __(AVX2|AVX512F)__ .*/\1/p; s/.* __VERSION__ "(.*)"/\1/p' | sort | (uname -m; cat) | xargs | tr ' ' -)
NINJA := CMAKE_GENERATOR=Ninja PATH="$(CURDIR)/$(BIN):$$PATH"

# Makes the targets $(1) one after the other as far as they succeed, and says how long each of them took.
define in-turn
	@table=; for stage in $(1); do \
		start=$$(date +%s); $(MAKE) --no-print-directory $$stage; status=$$?; \
		table="$$table$$(printf '%-20s %4d s' $$stage $$(($$(date +%s) - start)))\n"; \
		if [ $$status -ne 0 ]; then table="$$table$$stage failed\n"; break; fi; \
	done; printf "\n$$table"; exit $$status
endef

.PHONY: demo test check $(TESTS) $(CHECKS) sanitized races like-a-gpu cuda-on-host paper bench report format clean

demo: $(VENV)/installed
	$(BIN)/tad demo --output demo_output

test: $(VENV)/test-tools
	$(call in-turn,$(TESTS))

check: $(VENV)/test-tools $(VENV)/lint-tools
	$(call in-turn,$(CHECKS))

test-cpp: $(VENV)/test-tools
	$(UNCHANGED) $@-on-$(MACHINE) $(KERNELS) -- $(MAKE) sanitized

test-races: $(VENV)/test-tools
	$(UNCHANGED) $@ $(KERNELS) -- $(MAKE) races like-a-gpu

sanitized: OPTION := -DTAD_SANITIZE=address,undefined
races: OPTION := -DTAD_SANITIZE=thread
like-a-gpu: OPTION := -DTAD_LIKE_A_GPU=ON
sanitized races like-a-gpu:
	$(NINJA) cmake -S . -B build/$@ $(OPTION)
	$(NINJA) cmake --build build/$@ --parallel 2
	$(BIN)/ctest --test-dir build/$@ --parallel 2 --output-on-failure

test-planted-bugs: $(VENV)/test-tools
	$(NINJA) $(UNCHANGED) $@ $(KERNELS) 'tools/planted_bugs.*' -- $(BIN)/python tools/planted_bugs.py

test-nvcc: $(VENV)/test-tools
	$(BIN)/python tools/cuda_resources.py $(NVCC_CHECK)

test-python: $(VENV)/test-tools
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow"

test-slow: $(VENV)/test-tools
	$(UNCHANGED) $@-on-$(MACHINE) $(PACKAGE) -- $(BIN)/python -m pytest --numprocesses 2 -m slow

test-cuda-on-host: $(VENV)/test-tools
	$(UNCHANGED) $@ $(KERNELS) 'csrc/bindings/*' 'tad_ext/ops/*' 'python_tests/ops/*' \
		$(OP_HELPERS:%=python_tests/helpers/%.py) python_tests/conftest.py tools/build_cuda_on_host.py -- \
		$(MAKE) cuda-on-host

# In a shuffled order of threads, in which a missing barrier shows most often.
cuda-on-host:
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/build_cuda_on_host.py
	TAD_EXT_CUDA_ON_HOST=build/cuda_on_host/cuda_on_host_ops.so TAD_CUDA_ON_HOST_ORDER=shuffled:1 \
		$(BIN)/python -m pytest --numprocesses 2 -m "not gpu" python_tests/ops

test-smoke: $(VENV)/installed
	$(BIN)/tad demo --smoke --output build/smoke

# Two processes share the cells; stopped, it goes on.
paper: $(VENV)/installed
	mkdir -p build
	$(BIN)/python -m bench.paper > build/paper-second.log 2>&1 & second=$$!; \
		$(BIN)/python -m bench.paper; status=$$?; wait $$second && exit $$status

bench: $(VENV)/bench-tools
	$(BIN)/python -m pytest bench --benchmark-columns=min,median,rounds
	$(BIN)/python -m bench.decode

check-cpp: $(VENV)/test-tools
	$(NINJA) cmake -S . -B build/check -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1
	$(NINJA) cmake --build build/check --parallel 2 --target host_tests
	$(BIN)/ctest --test-dir build/check --parallel 2 --output-on-failure --tests-regex '^(common|cpu)_'

report: $(VENV)/installed
	$(BIN)/python -m bench.report --tables docs/benchmarks.md --plot docs/kernels.svg

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
	$(BIN)/python -m pip install --quiet pytest pytest-xdist pytest-benchmark hypothesis cmake ninja "math-verify>=0.9" "lm_eval>=0.4.13" tensorboard \
		"transformers[serving]>=5.24" "nvidia-cuda-nvdisasm; sys_platform == 'linux'"
	touch $@

$(VENV)/bench-tools: $(VENV)/installed
	$(BIN)/python -m pip install --quiet pytest pytest-benchmark
	touch $@

$(VENV)/lint-tools: $(VENV)/installed
	$(BIN)/python -m pip install --quiet ruff mypy "clang-format>=20" types-PyYAML types-regex types-tqdm
	touch $@
