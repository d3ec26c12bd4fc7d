# make demo        install, remap the bundled seed and say what happened, then search an architecture within a budget and fine-tune it
# make test        install what the tests need, then run them, in two processes
# make test-quick  the tests that answer in under two minutes
# make lint        ruff and mypy
# make docs        the documentation, into build/docs; warnings are errors
# make sweep       the whole list of models, as a table
# make bench       our commands beside onnxsim, onnxslim and Torch-Pruning on the same networks
# make gpu         what only a GPU can show: a line a check, figures into benchmarks/results/gpu.json
# make fuzz        damaged model files and wild specs through inspect, remap and check

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := build/demo
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-quick lint docs sweep bench gpu fuzz clean

demo: $(VENV)/.search
	@mkdir -p $(OUT)
	@echo "== the bundled seed: MobileNetV2, 19 dog breeds"
	$(BIN)/fnatool inspect mobilenetv2_bn
	@echo "== the shape asked for"
	@cat examples/demo.json
	@echo "== remap: the seed in that shape, with what it knows"
	$(BIN)/fnatool remap mobilenetv2_bn --spec examples/demo.json --strategy preserve --output $(OUT)/target.onnx --force
	@echo "== check: the result is valid, runs, and is what the spec says"
	$(BIN)/fnatool check $(OUT)/target.onnx --spec examples/demo.json --against mobilenetv2_bn
	@ls -l $(OUT)/target.onnx
	@echo "== search: the best shape of the seed for another task, within a budget, fine-tuned"
	$(BIN)/fnatool search --output $(OUT)/search
	@cat $(OUT)/search/report.md
	@ls -l $(OUT)/search/target.onnx

test: $(VENV)/.dev
	$(BIN)/python -m compileall -q fnatool passes benchmarks tests  # hundreds of processes begin by importing them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-quick: $(VENV)/.dev
	$(BIN)/python -m compileall -q fnatool passes benchmarks tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

sweep: $(VENV)/.dev
	$(BIN)/python -m benchmarks.sweep

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.bench

gpu: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu

fuzz: $(VENV)/.dev
	$(BIN)/python -m benchmarks.fuzz

clean:
	rm -rf $(VENV) build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps make the second call quick: pip runs again only when the requirements change.
$(VENV)/.search: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[search]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.search
