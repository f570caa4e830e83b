# Everything that is built lives in .venv, dist and target; `make clean` removes it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
# Where `make serve` listens; 0 picks a free port.
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
# What `make bench` measures; empty: everything. `make bench BENCH="cpu --rounds 9"`, see docs/benchmarks.md.
BENCH ?=

# What `make fuzz` tries: how many files, which ones, and the models that they are made of.
FUZZ ?= 20000 1 examples/models

# The server that `make batched` compares with, and a folder that holds its models and may hold others.
BEFORE ?=
BATCHED ?= $(CURDIR)/target/batched

# What `make search` tries: how many graphs, and which ones; `--lost` counts what is refused without need.
SEARCH ?= 20000 1

# pip compiles nothing here and asks nobody.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The extension and the tests are linked against the interpreter that runs them.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
# Both maturin and cargo build here, so that neither builds twice.
export CARGO_TARGET_DIR ?= $(CURDIR)/target

RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust protos -type f \
	\( -name '*.rs' -o -name '*.toml' -o -name '*.proto' \))
PYTHON_SOURCES := pyproject.toml $(shell find python -type f \( -name '*.py' -o -name '*.pyi' -o -name py.typed \))
# The wheel's library, which Rust tests load.
ORT_LIBRARY = $$(PYTHONPATH=python $(BIN)/python -m mlserve.serving.runtime)

.PHONY: help serve test fuzz search batched loom check bench attack kserve perf-analyzer h2spec rolling proxies protos models reference deny clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

serve: $(STAMPS)/release ## Build the release, serve the example models, send one request
	@HTTP_PORT=$(HTTP_PORT) GRPC_PORT=$(GRPC_PORT) METRICS_PORT=$(METRICS_PORT) bash examples/serve.sh $(BIN)/mlserve

test: $(STAMPS)/dev ## Build for development and run every test
	MLSERVE_ORT_LIB=$(ORT_LIBRARY) cargo test --workspace --locked --features failpoints
	$(MAKE) --no-print-directory loom
	$(BIN)/python -m pytest

check: $(STAMPS)/dev ## Formats, lints, types, stub and layers
	cargo fmt --all --check
	MLSERVE_ORT_LIB=$(ORT_LIBRARY) cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml mlserve._core
	$(BIN)/python -m pytest tests/unit/test_layers.py tests/unit/test_generated.py

fuzz: $(STAMPS)/tools ## Load changed model files in a child process (FUZZ="COUNT SEED FOLDER…")
	cargo build --release --locked --package mlserve-ort --example fuzz
	MLSERVE_ORT_LIB=$(ORT_LIBRARY) $(CARGO_TARGET_DIR)/release/examples/fuzz $(FUZZ)

search: $(STAMPS)/tools ## Look for graphs that are batched although rows mix (SEARCH="COUNT SEED")
	cargo build --release --locked --package mlserve-ort --example batching
	MLSERVE_ORT_LIB=$(ORT_LIBRARY) $(BIN)/python -m tests.random_graphs.search $(SEARCH)

batched: $(STAMPS)/tools $(STAMPS)/converters ## Compare which models are batched with another version (BEFORE=mlserve-server)
	@test -n "$(BEFORE)" || { echo "make: BEFORE names the mlserve-server to compare with" >&2; exit 1; }
	cargo build --release --locked --package mlserve-ort --example batching
	mkdir -p $(BATCHED)
	$(VENV)-converters/bin/python -m benchmarks.batching write $(BATCHED)
	MLSERVE_ORT_LIB=$(ORT_LIBRARY) $(VENV)-converters/bin/python -W ignore -m benchmarks.batching table $(BATCHED) \
		--binary $(CARGO_TARGET_DIR)/release/examples/batching --before $(BEFORE)

# Loom replaces the locks of the whole build, so it has a target directory of its own.
loom: ## Try every interleaving where threads meet (part of make test)
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/loom cargo test --locked -p mlserve-core --test loom

bench: $(STAMPS)/release $(STAMPS)/tools ## Measure; prints tables, writes benchmarks/results
	cargo build --release --locked --package mlserve-server
	cargo build --release --locked --package mlserve-ort --example proof
	$(BIN)/python benchmarks/run.py $(BENCH)
	$(if $(BENCH),,$(BIN)/python -m pytest benchmarks --benchmark-only --timeout 600 \
		--benchmark-json benchmarks/results/client.json)

# The same families as in `make test`, larger, and with bounds on what a good client beside them notices.
attack: $(STAMPS)/release $(STAMPS)/tools ## Attack the release on a quiet machine; writes benchmarks/results/attacks.json
	$(BIN)/python -m pytest tests/attacks --full --tb short

kserve: $(STAMPS)/dev $(STAMPS)/kserve ## Try KServe's client against the server (downloads it)
	$(BIN)/python -m pytest tests/conformance/foreign/kserve_client.py

perf-analyzer: $(STAMPS)/dev $(STAMPS)/perf-analyzer ## Run Triton's perf_analyzer against the server (downloads it)
	$(BIN)/python -m pytest tests/conformance/foreign/perf_analyzer.py

rolling: $(STAMPS)/dev ## Restart servers twenty times under clients that keep their connections
	$(BIN)/python -m pytest -s tests/conformance/foreign/rolling_restarts.py

proxies: $(STAMPS)/dev ## Try clients behind nginx and HAProxy (needs both installed: apt-get install nginx-light haproxy)
	$(BIN)/python -m pytest -s tests/conformance/foreign/proxies.py

h2spec: $(STAMPS)/dev $(STAMPS)/h2spec ## Run h2spec against the server, plain and strict (builds it with Go)
	$(BIN)/python -m pytest -rP tests/conformance/foreign/h2spec.py

protos: $(STAMPS)/tools ## Write the protocol's Python modules from protos/
	$(BIN)/python protos/generate.py

models: $(STAMPS)/training ## Train the example models and make the benchmark models again
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(VENV)-training/bin/python -W ignore examples/train_models.py
	$(VENV)-training/bin/python benchmarks/make_models.py

reference: ## Write docs/reference from the settings, errors and metrics in the code
	UPDATE_REFERENCE=1 cargo test --package mlserve-server --locked --test reference

deny: ## Check licences, sources and layers of all dependencies (installs cargo-deny if missing)
	command -v cargo-deny > /dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

clean: ## Remove everything that was built
	rm -rf $(VENV) $(VENV)-* dist target python/mlserve/_core*.so .pytest_cache .mypy_cache .ruff_cache

# ---- steps ------------------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@test -n "$(PYTHON)" || { echo "make: no python3 found; install Python 3.11 or set PYTHON=…" >&2; exit 1; }
	@command -v cargo > /dev/null || { echo "make: no cargo found; install Rust first (https://rustup.rs)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/tools: requirements-dev.txt | $(STAMPS)/venv
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	touch $@

$(STAMPS)/maturin: requirements-dev.txt | $(STAMPS)/venv
	$(BIN)/pip install --quiet "$$(grep '^maturin==' requirements-dev.txt)"
	touch $@

# One wheel of the present sources; older ones go, so that the glob below finds this one.
$(STAMPS)/wheel: $(RUST_SOURCES) $(PYTHON_SOURCES) | $(STAMPS)/maturin
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist --interpreter $(PYO3_PYTHON)
	touch $@

# The wheel and the development build are the same package: installing one puts the other's stamp out of date.
$(STAMPS)/release: $(STAMPS)/wheel
	$(BIN)/pip install --quiet dist/mlserve-*.whl
	$(BIN)/pip install --quiet --force-reinstall --no-deps dist/mlserve-*.whl
	rm -f $(STAMPS)/dev && touch $@

# The dev profile, so that `cargo test` finds the dependencies built. With failpoints, which no release has.
$(STAMPS)/dev: $(RUST_SOURCES) pyproject.toml $(STAMPS)/tools
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --quiet --locked --features failpoints
	rm -f $(STAMPS)/release && touch $@

# Training has its own environment: scikit-learn and onnx are needed by nothing else.
$(STAMPS)/training: pyproject.toml | $(STAMPS)/venv
	$(PYTHON) -m venv $(VENV)-training
	$(VENV)-training/bin/pip install --quiet --upgrade pip
	$(VENV)-training/bin/pip install --quiet --group examples
	touch $@

$(STAMPS)/converters: pyproject.toml | $(STAMPS)/venv
	$(PYTHON) -m venv $(VENV)-converters
	$(VENV)-converters/bin/pip install --quiet --upgrade pip
	$(VENV)-converters/bin/pip install --quiet --group converters
	touch $@

# KServe's package pulls in what no other test needs, and its messages clash with tritonclient's.
$(STAMPS)/kserve: | $(STAMPS)/venv
	$(PYTHON) -m venv $(VENV)-kserve
	$(VENV)-kserve/bin/pip install --quiet kserve==0.21.0
	touch $@

$(STAMPS)/h2spec: | $(STAMPS)/venv
	GOBIN=$(CURDIR)/$(VENV)-h2spec go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
	touch $@

# The last wheel with the binary. It is linked to CUDA's runtime, which lies in a wheel, and to libb64, which does not:
# Debian's package is unpacked unless the library is installed. Where neither works, the tests say so and are skipped.
$(STAMPS)/perf-analyzer: | $(STAMPS)/venv
	$(PYTHON) -m venv $(VENV)-perf-analyzer
	$(VENV)-perf-analyzer/bin/pip install --quiet --no-deps tritonclient==2.50.0 nvidia-cuda-runtime-cu12==12.9.79
	ldconfig -p | grep -q libb64.so.0d || (cd $(VENV)-perf-analyzer && apt-get download -q libb64-0d \
		&& dpkg-deb --extract libb64-0d_*.deb libb64) || true
	touch $@
