# Two commands: `make demo` sets up and runs the main job, `make test` sets up and passes the tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_OUTPUT ?= runs/mnist-jetson

.PHONY: demo test lint schema docs clean

# torch first and exactly pinned: with it installed, nothing else pulls another build.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
	touch $(READY)

demo: $(READY)
	$(BIN)/edgedafl compress examples/mnist/teacher.onnx --target jetson \
	    --input-mean 0.1307 --input-std 0.3081 \
	    --eval examples/mnist/sample.npz --output $(DEMO_OUTPUT) --force
	$(BIN)/edgedafl gate $(DEMO_OUTPUT) --max-size 100KB --min-fidelity 95%

# Fast tests first, then the slow ones; the types, the style and the import rules before both.
test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks
	$(BIN)/lint-imports

# The documentation as a site, in build/site; warnings and dead links are errors.
docs: $(READY)
	$(BIN)/python -m pip install --quiet -e ".[docs]" -c constraints.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The published JSON Schema of run.json; a test compares it with the code.
schema: $(READY)
	$(BIN)/python -c "import json; from edgedafl.runs import json_schema; print(json.dumps(json_schema(), indent=1))" \
	    > docs/reference/run-schema.new && mv docs/reference/run-schema.new docs/reference/run-schema.json

clean:
	rm -rf $(VENV) runs build dist *.egg-info
