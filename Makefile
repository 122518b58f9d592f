# People, pre-commit and CI call the same targets; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.SILENT:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Optional parts of the product for `make setup`, such as EXTRAS="exports kubeflow".
EXTRAS ?=
# Further arguments for the program that a target calls.
ARGS ?=
# What `make test-torch` installs: a requirement or a wheel.
TORCH ?= torch
# Which image `make image` builds; the pipeline's by default.
TARGET ?=
# Which image `make scan` looks at; by default none, but the environment.
IMAGE ?=
# Test processes side by side; each takes some GB, with what it starts.
WORKERS ?= 2

# TensorFlow, gRPC and Beam tell much on every start that nobody acts on; errors still come through.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export GRPC_VERBOSITY ?= ERROR

.PHONY: help
help: ## List every target with a sentence.
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Make the environment .venv, or bring it up to date (PYTHON=/path/to/python3.12, EXTRAS="exports kubeflow").
	for name in $${PYTHON:-} python3 python3.12 python3.11 python3.13 python; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 8))' > /dev/null 2>&1; then \
	    exec $$name tools/bootstrap.py --extras "$(EXTRAS)"; \
	  fi; \
	done; \
	echo "setup: error: no Python 3.8 or newer on the PATH (the set-up itself needs one, the product 3.11 to 3.13)" >&2; \
	echo "       fix: install Python 3.11, 3.12 or 3.13 (Debian, Ubuntu: apt install python3 python3-venv python3-dev)" >&2; \
	exit 1

.PHONY: run
run: setup ## Ingest the first half of the data as span 1 and run the pipeline on it.
	$(BIN)/bike-pipeline run --demo first $(ARGS)

.PHONY: retrain
retrain: setup ## Ingest the second half as span 2 and run again, against the model that is served now.
	$(BIN)/bike-pipeline run --demo second $(ARGS)

.PHONY: monitor
monitor: setup ## Ask the served model for the hours of 2012, and say what changed, what that costs, why, and what helps.
	$(BIN)/bike-pipeline monitor demo
	# 22 is a verdict: something has changed, and that costs something.
	$(BIN)/bike-pipeline monitor run --window 14d --until 2012-10-01 $(ARGS) || [ $$? -eq 22 ]

.PHONY: demo
demo: setup ## Live through a model's whole life offline: drift, an upload, a run by itself, what is refused, a rollback.
	PYTHONPATH=. $(BIN)/python tools/demo.py

.PHONY: databases
databases: setup ## Fetch the database servers that some tests use (Debian, Ubuntu; nothing is installed on the machine).
	# Where they cannot be had, the tests of them are skipped and say so.
	$(BIN)/python tools/database_servers.py || true

.PHONY: browser
browser: setup ## Fetch Chromium, which looks at pages in some tests (Debian, Ubuntu; nothing is installed on the machine).
	$(BIN)/python tools/browser.py || true

.PHONY: monitoring-servers
monitoring-servers: setup ## Fetch Prometheus and Alertmanager, which some tests use (Debian, Ubuntu; nothing is installed).
	$(BIN)/python tools/monitoring_servers.py || true

.PHONY: test
test: setup ## Check everything: lint, types, imports and all tests, with a summary at the end.
	$(MAKE) databases; \
	$(MAKE) browser; \
	$(MAKE) monitoring-servers; \
	PYTHONPATH=. $(BIN)/python tools/load_generators.py || true; \
	failed=0; summary=""; \
	for step in lint types imports pytest; do \
	  began=$$SECONDS; result=ok; \
	  echo "== $$step"; \
	  $(MAKE) $$step || { result=FAILED; failed=1; }; \
	  summary+=$$(printf '  %-8s %-7s %5d s' $$step $$result $$((SECONDS - began)))$$'\n'; \
	done; \
	printf '\nsummary\n%s' "$$summary"; \
	exit $$failed

.PHONY: test-fast
test-fast: setup ## Run the tests that take less than ten seconds each (ARGS="-k spans" picks some).
	$(BIN)/python -m pytest --numprocesses $(WORKERS) -m "not slow" $(ARGS)

.PHONY: pytest
pytest: setup ## Run all tests (ARGS="tests/data -x" picks some).
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(ARGS)

.PHONY: test-tracking
test-tracking: setup ## Track runs at a real MLflow server and pull data with the real dvc (in an environment of their own).
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .tracking-servers
	$(BIN)/uv pip install --quiet --python .tracking-servers/bin/python --requirement tests/tracking/servers.txt
	TRACKING_SERVERS=.tracking-servers $(BIN)/python -m pytest tests/tracking/test_servers.py $(ARGS)

.PHONY: test-signing
test-signing: setup ## Verify a pushed version with OpenSSF Model Signing's own program (in an environment of its own).
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .model-signing
	$(BIN)/uv pip install --quiet --python .model-signing/bin/python --requirement tests/model_registry/model-signing.txt
	MODEL_SIGNING=.model-signing $(BIN)/python -m pytest --numprocesses 0 tests/model_registry/test_model_signing_tool.py $(ARGS)

.PHONY: test-gateway
test-gateway: setup ## Run the tests of the gateway: attacks, shares and changes of routes through the real Envoy.
	$(BIN)/python -m pytest --numprocesses 0 tests/rollout/gateway $(ARGS)

.PHONY: test-federated
test-federated: setup ## Train with two clients over Flower's own server (in an environment of their own).
	$(MAKE) flower
	FEDERATED=.federated $(BIN)/python -m pytest --numprocesses 0 tests/federated/test_flower.py $(ARGS)

.PHONY: feast-environment
feast-environment: setup ## Make Feast's environment, .feast, which reads feast:// and fills its online store.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .feast
	$(BIN)/uv pip install --quiet --require-hashes --python .feast/bin/python --requirement tools/feast.txt

.PHONY: test-feast
test-feast: setup ## Read from and write to a real Feast repository (in an environment of its own).
	$(MAKE) feast-environment
	FEAST=.feast $(BIN)/python -m pytest --numprocesses 0 tests/data/sources/test_feast.py \
	  tests/serving/server/test_feast_client.py $(ARGS)

.PHONY: test-opensearch
test-opensearch: setup ## Send the request log to a real OpenSearch, a node of its Maven classes (needs Java and Maven).
	$(BIN)/python tools/opensearch_node.py
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .opensearch/parser
	$(BIN)/uv pip install --quiet --python .opensearch/parser/bin/python --requirement tests/monitoring/logstash.txt
	OPENSEARCH=.opensearch $(BIN)/python -m pytest --numprocesses 0 tests/monitoring/test_opensearch.py $(ARGS)

.PHONY: airflow-environment
airflow-environment: setup ## Make Airflow's environment, .airflow, apart from TFX's packages.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .airflow
	$(BIN)/uv pip install --quiet --require-hashes --python .airflow/bin/python --requirement runners/airflow/requirements.txt

.PHONY: test-airflow
test-airflow: setup ## Let the real Airflow run its DAG of continuous training (in an environment of its own).
	$(MAKE) airflow-environment
	AIRFLOW=.airflow $(BIN)/python -m pytest --numprocesses 0 tests/runners/test_airflow.py $(ARGS)

.PHONY: test-workflows
test-workflows: setup ## Judge the workflows by actionlint and execute each by act, on this machine (needs Go).
	command -v go > /dev/null || { \
	  echo "test-workflows: error: no Go on the PATH, which act and actionlint are built with" >&2; \
	  echo "                fix: install Go 1.24 or newer" >&2; \
	  exit 1; }
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .workflows
	$(BIN)/uv pip install --quiet --require-hashes --python .workflows/bin/python --requirement tests/workflows/tools.txt
	GOBIN=$(CURDIR)/.workflows/bin go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	GOBIN=$(CURDIR)/.workflows/bin go install github.com/nektos/act@v0.2.89
	# Groovy reads the Jenkinsfile, where Maven and Java are at hand.
	if command -v mvn > /dev/null && command -v java > /dev/null; then \
	  mvn --quiet --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
	    -Dartifact=org.apache.groovy:groovy:4.0.28 -DoutputDirectory=$(CURDIR)/.workflows/groovy; \
	fi
	WORKFLOWS=.workflows $(BIN)/python -m pytest --numprocesses $(WORKERS) tests/workflows $(ARGS)

.PHONY: cluster-tools
cluster-tools: setup ## Build Kubernetes' servers, kwok, kustomize, Flagger and others, once (needs Go 1.26; up to an hour).
	PYTHONPATH=. $(BIN)/python tools/cluster_tools.py $(ARGS)

.PHONY: test-cluster
test-cluster: setup ## Apply the manifests to a real API server with real controllers (what `make cluster-tools` built).
	CLUSTER_TOOLS=.cluster-tools $(BIN)/python -m pytest --numprocesses 0 tests/cluster $(ARGS)

.PHONY: test-torch
test-torch: setup ## Export to PyTorch and check what was saved, with its CPU build in an environment of its own.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .torch
	# All else comes from .venv, whose packages a CPU build needs no others beside.
	$(BIN)/python -c "import pathlib, sysconfig; site = sysconfig.get_path('purelib'); \
	  pathlib.Path('.torch', *pathlib.Path(site).parts[-3:], 'beside.pth').write_text(f'import site; site.addsitedir({site!r})')"
	$(BIN)/uv pip install --quiet --no-deps --python .torch/bin/python --torch-backend cpu $(TORCH) || { \
	  echo "test-torch: error: PyTorch's CPU build cannot be had from here" >&2; \
	  echo "            fix: name a wheel of it: make test-torch TORCH=/path/to/torch.whl" >&2; \
	  exit 1; }
	TORCH_REQUIRED=1 .torch/bin/python -m pytest --numprocesses 0 tests/exporting/test_torch.py tests/exporting/test_not_finite.py $(ARGS)

.PHONY: test-android
test-android: setup ## Compile the edge bundle's Kotlin class against LiteRT's Java classes (needs Java and Maven).
	$(BIN)/python -m tools.android_kotlin

.PHONY: lint
lint: setup ## Look for mistakes in code, workflows and the Dockerfile, and for code that is not formatted.
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check . || { echo "lint: some files are not formatted; run: make format" >&2; exit 1; }
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/hadolint Dockerfile

.PHONY: format
format: setup ## Format the code and mend what can be mended by rule.
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format --quiet .

.PHONY: types
types: setup ## Check the types.
	$(BIN)/mypy

.PHONY: imports
imports: setup ## Check that imports go one way, from the runners down to the errors.
	report=$$($(BIN)/lint-imports 2>&1) || { echo "$$report" >&2; exit 1; }; \
	echo "$$report" | tail -n 1

.PHONY: lock
lock: setup ## Make requirements/*.txt again from pyproject.toml (UPGRADE=1: the newest versions that fit).
	$(BIN)/python tools/lock.py $(if $(UPGRADE),--upgrade)

.PHONY: doctor
doctor: setup ## Print what is there, which versions, what is missing and how to get it.
	$(BIN)/bike-pipeline doctor $(ARGS)

.PHONY: notebooks
notebooks: setup ## Execute the notebooks on the workspace, and write workspace/notebooks/*.html (ARGS="02_lineage" picks some).
	$(BIN)/python tools/notebooks.py $(ARGS)

.PHONY: referee
referee: setup ## Ask Kubeflow's and Kubernetes' own Go code whether they take the compiled specs and manifests (needs Go).
	$(BIN)/python tools/kubeflow_referee/referee.py $(ARGS)

.PHONY: image
image: ## Build the container image (needs docker or podman; TARGET=beam-worker for that of Beam's workers).
	for program in docker podman; do \
	  if command -v $$program > /dev/null; then \
	    commit=$$(git rev-parse HEAD 2> /dev/null || true); \
	    exec $$program build --build-arg GIT_COMMIT=$$commit $(if $(TARGET),--target $(TARGET)) \
	      --tag bike-pipeline$(if $(TARGET),-$(TARGET)):$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) $(ARGS) .; \
	  fi; \
	done; \
	echo "image: error: neither docker nor podman is on the PATH" >&2; \
	echo "       fix: install one of them, or let CI build the Dockerfile" >&2; \
	exit 1

.PHONY: sbom
sbom: setup ## Write build/sbom.cdx.json: every package of the environment with its version and licence (CycloneDX).
	mkdir -p build
	$(BIN)/python -c "import pathlib; from bike_pipeline.lineage.records.bill_of_materials import bill_of_materials; \
	  pathlib.Path('build/sbom.cdx.json').write_bytes(bill_of_materials())"

.PHONY: scan
scan: setup ## Look for known vulnerabilities in the environment, or in IMAGE (needs grype or trivy, and its database).
	$(MAKE) sbom
	scan() { set -- "$$@" $(ARGS); echo "scan: $$*"; "$$@" && exit 0; \
	  echo "scan: error: it found something, or has no database: see above" >&2; exit 1; }; \
	command -v grype > /dev/null && scan grype --fail-on high $(or $(IMAGE),sbom:build/sbom.cdx.json); \
	command -v trivy > /dev/null && scan trivy --exit-code 1 --severity HIGH,CRITICAL $(if $(IMAGE),image $(IMAGE),sbom build/sbom.cdx.json); \
	echo "scan: error: neither grype nor trivy is on the PATH, so nothing was looked for" >&2; \
	echo "      fix: install one of them; it fetches its database of vulnerabilities on its first call" >&2; \
	exit 1

.PHONY: flink
flink: setup ## Fetch Beam's job server for Flink with Maven, once (ARGS="--set beam.flink.version=1.20").
	$(BIN)/python tools/job_servers.py flink $(ARGS)

.PHONY: spark
spark: setup ## Fetch Beam's job server for Spark with Maven, once.
	$(BIN)/python tools/job_servers.py spark $(ARGS)

.PHONY: prism
prism: setup ## Build Prism, Beam's engine in Go, once: the tests of other engines use it where it is there.
	$(BIN)/python tools/job_servers.py prism $(ARGS)

.PHONY: boot
boot: setup ## Build boot, which starts Beam's Python workers as processes on a machine, once.
	$(BIN)/python tools/job_servers.py boot $(ARGS)

.PHONY: benchmark
benchmark: setup ## Measure a whole run against the plain TFX way and against polars and Keras with no pipeline.
	$(BIN)/python -m benchmarks.end_to_end --plot benchmarks/results/end_to_end.png $(ARGS)

.PHONY: benchmark-scale
benchmark-scale: setup ## Measure each stage from ten thousand to a million rows (ARGS="--rows 10000,1000000,10000000").
	$(BIN)/python benchmarks/scale.py $(ARGS)

.PHONY: benchmark-serving
benchmark-serving: setup ## Measure the embedded server against its goals and FastAPI (ARGS=--million for a million requests).
	$(MAKE) load-generators
	$(BIN)/python -m benchmarks.serving --plot benchmarks/results/serving.png --json benchmarks/results/serving.json $(ARGS)

.PHONY: load-generators
load-generators: setup ## Fetch wrk and h2load for `bench-serving` (Debian, Ubuntu; nothing is installed on the machine).
	PYTHONPATH=. $(BIN)/python tools/load_generators.py

.PHONY: benchmark-requests
benchmark-requests: setup ## Take in, join and report a million logged requests (ARGS="--requests 100000").
	$(BIN)/python -m benchmarks.request_log --json benchmarks/results/requests.json $(ARGS)

.PHONY: benchmark-batch
benchmark-batch: setup ## Answer ten million rows as files, beside plain predictors (needs a served model; ARGS="--rows 100000,1000000").
	$(BIN)/python -m benchmarks.predict_batch --json benchmarks/results/batch.json $(ARGS)

.PHONY: benchmark-fleet
benchmark-fleet: setup ## Measure what one city costs, and say what a thousand come to (needs a served model; ARGS="--models 5,50").
	$(BIN)/python -m benchmarks.fleet --json benchmarks/results/fleet.json $(ARGS)

.PHONY: benchmark-exports
benchmark-exports: setup ## Hold every exported format against its goals: difference, loss, size, latency, in one run.
	$(BIN)/python -m benchmarks.exports --json benchmarks/results/exports.json --plot benchmarks/results/exports.png $(ARGS)

.PHONY: benchmark-automl
benchmark-automl: setup ## Hold the model against FLAML and AutoGluon on the same protocols (ARGS="--protocols P1").
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .automl-peers
	$(BIN)/uv pip install --quiet --require-hashes --python .automl-peers/bin/python --requirement benchmarks/quality/automl.txt
	$(BIN)/python -m benchmarks.model_quality --peers automl --peers-python .automl-peers/bin/python \
	  --json benchmarks/results/automl.json --plot benchmarks/results/automl.png $(ARGS)

.PHONY: benchmark-quality
benchmark-quality: setup ## Hold the model against its goals and trees of four libraries on six protocols (ARGS="--protocols P1").
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .quality-peers
	$(BIN)/uv pip install --quiet --require-hashes --python .quality-peers/bin/python --requirement benchmarks/quality/peers.txt
	$(BIN)/python -m benchmarks.model_quality --peers-python .quality-peers/bin/python \
	  --json benchmarks/results/model_quality.json --plot benchmarks/results/model_quality.png $(ARGS)

.PHONY: benchmark-monitoring
benchmark-monitoring: setup ## Hold the detectors against what happened, injected faults, Evidently and NannyML, in one run.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .monitoring-peers
	$(BIN)/uv pip install --quiet --require-hashes --python .monitoring-peers/bin/python --requirement benchmarks/monitoring/peers.txt
	$(BIN)/python -m benchmarks.monitoring_detectors --peers-python .monitoring-peers/bin/python \
	  --json benchmarks/results/monitoring.json --plot benchmarks/results/monitoring.png $(ARGS)

.PHONY: benchmark-labels
benchmark-labels: setup ## Hold hours that `label suggest` names against hours drawn at random (ARGS="--seeds 3").
	$(BIN)/python -m benchmarks.label_suggestions \
	  --json benchmarks/results/labels.json --plot benchmarks/results/labels.png $(ARGS)

.PHONY: flower
flower: setup ## Make Flower's environment, .federated: Flower beside the packages of .venv.
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .federated
	$(BIN)/python -c "import pathlib, sysconfig; site = sysconfig.get_path('purelib'); \
	  pathlib.Path('.federated', *pathlib.Path(site).parts[-3:], 'beside.pth').write_text(f'import site; site.addsitedir({site!r})')"
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --python .federated/bin/python --requirement benchmarks/federated.txt

.PHONY: federated
federated: setup ## Hold federated training against central training and each client alone (needs Flower's packages).
	$(MAKE) flower
	$(BIN)/python -m benchmarks.federated --python .federated/bin/python --json benchmarks/results/federated.json $(ARGS)

EXPLORERS ?= lit rai
.PHONY: explorers
explorers: setup ## Make the environments of LIT and of the Responsible AI Toolbox, .lit and .rai (they need a Python 3.11).
	set -e; for name in $(EXPLORERS); do \
	  UV_PYTHON_DOWNLOADS=never $(BIN)/uv venv --quiet --allow-existing --python 3.11 .$$name; \
	  $(BIN)/uv pip install --quiet --require-hashes --python .$$name/bin/python --requirement tools/$$name.txt; \
	done

.PHONY: lit
lit: setup ## Look at the served model in LIT (ARGS="rentals.csv --server 127.0.0.1:8501").
	$(MAKE) explorers EXPLORERS=lit
	PYTHONPATH=. .lit/bin/python tools/lit_server.py $(ARGS)

.PHONY: rai
rai: setup ## Look at the served model with the Responsible AI Toolbox (ARGS="rentals.csv --port 5000").
	$(MAKE) explorers EXPLORERS=rai
	PYTHONPATH=. .rai/bin/python tools/rai_insights.py $(ARGS)

.PHONY: test-lit
test-lit: setup ## Ask a model server through LIT, over HTTP (in an environment of its own).
	$(MAKE) explorers EXPLORERS=lit
	LIT=.lit $(BIN)/python -m pytest --numprocesses 0 tests/serving/server/test_explorers.py -k lit $(ARGS)

.PHONY: test-rai
test-rai: setup ## Let the Responsible AI Toolbox look at a served model (in an environment of its own).
	$(MAKE) explorers EXPLORERS=rai
	RAI=.rai $(BIN)/python -m pytest --numprocesses 0 tests/serving/server/test_explorers.py -k toolbox $(ARGS)

.PHONY: clean
clean: ## Remove what runs wrote (workspace/: spans, models, lineage) and the caches of the tools.
	rm -rf workspace build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find bike_pipeline runners tests tools benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: clean-env
clean-env: ## Remove the environments; the next target makes them again.
	rm -rf .venv .venv.lock .lit .rai .tracking-servers .workflows .airflow .model-signing .federated .feast .opensearch .torch .cluster-tools .quality-peers .automl-peers .monitoring-peers
