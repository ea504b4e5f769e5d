# Everything a developer or a first-time user runs. Each target makes the environment it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STORE  ?= umbel-store

.PHONY: help demo demo-s3 test test-fast check format bench env proto clean

help:           ## List the targets
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.demo   ## Run the main job on real data: 182 countries x 110 trials, then chart the result
	$(BIN)/python examples/gdp.py --store $(STORE)

demo-s3: $(VENV)/.dev   ## The same on object storage: starts a real S3 server for it (SeaweedFS), and ends it
	$(BIN)/python -m tests.demo_s3

test: $(VENV)/.dev    ## Run every test
	$(BIN)/python -m pytest -m "not ray" -n 2 --dist loadfile --durations=10
	$(BIN)/python -m pytest -m "ray and not alone" -n 2 --dist loadfile --durations=20
	$(BIN)/python -m pytest -m alone --durations=10

test-fast: $(VENV)/.dev   ## Run the tests that start no process (a minute or two on two cores)
	$(BIN)/python -m pytest -m "not ray" -n 2 --dist loadfile

check: $(VENV)/.dev   ## Lint, type-check and check the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev   ## Measure the numbers that Umbel promises; prints a table, writes bench-results/
	$(BIN)/python -m tests.bench

env: $(VENV)/.dev     ## Make the development environment only

# An old protoc: what it makes runs with every protobuf that Ray does. It needs an old protobuf itself, so it lives apart.
proto: $(BIN)/python  ## Make the code of gRPC anew from the .proto file
	$(BIN)/python -m venv $(VENV)/protoc
	$(VENV)/protoc/bin/python -m pip install --quiet --disable-pip-version-check "grpcio-tools==1.62.3" "setuptools<81"
	$(VENV)/protoc/bin/python -m grpc_tools.protoc -I src --python_out=src --pyi_out=src --grpc_python_out=src \
		umbel/cluster/serving/v1/predictor.proto

clean:          ## Remove the environment and what builds leave behind
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps record which extras are installed, so that an unchanged environment costs nothing.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[examples]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,examples]"
	@touch $@ $(VENV)/.demo
