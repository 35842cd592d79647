# The front door: `make` lists what there is. Every target can be run twice.
.DEFAULT_GOAL := help
.PHONY: help setup up test test-compose test-clients clients check bench train package deploy lock lock-dev clean
.DELETE_ON_ERROR:

# The Python that .venv is made with. Empty: the first of python3, python3.13, python3.12, python3.11 that is new enough.
PYTHON ?=
# What is passed on to the command behind up, test, bench, train, package and deploy: make up ARGS='--page-port 9000'. Not
# taken from the environment, where an ARGS would be that of a make further up.
ARGS =
# make lock LOCK_FLAGS=--upgrade takes newer versions; without it what is pinned stays.
LOCK_FLAGS =

# Environments of clients that others wrote, which the tests of the API run. They conflict with each other.
CLIENTS := openai2 openai3 lm-eval
EXTRAS := frontend backend llm telemetry aws gpu train
UV = $(or $(shell command -v uv 2>/dev/null),$(wildcard .venv/bin/uv))
PIN = '$(UV)' pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' $(LOCK_FLAGS)
COMPILE = $(PIN) pyproject.toml

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv with everything pinned in requirements/dev.txt; the others begin with it
	@PYTHON='$(PYTHON)' sh local/setup.sh

# A simple command, which make runs without a shell in between: a signal sent to make reaches huginn itself.
up: setup ## start page, API, model and metrics on this machine; Ctrl-C stops them (ARGS='--page-port 9000')
	@.venv/bin/huginn up $(ARGS)

check: setup ## lint, formatting, types, import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

clients: setup ## make the environments of other people's clients in build/clients, which tests/clients runs
	@.venv/bin/python -m tests.clients.environments $(CLIENTS) node

test-clients: setup clients ## other people's clients alone, and the document's truth with more examples (ARGS='-k lm_eval')
	HUGINN_EXAMPLES=100 HUGINN_SEED=$$(date +%s) .venv/bin/pytest tests/clients $(ARGS)

test: check ## check, then all tests; those that lack something say so (ARGS='-k page')
	.venv/bin/pytest $(ARGS)

test-compose: setup ## test the containers, with Docker and Compose v2
	.venv/bin/pytest -m compose tests/e2e/test_compose.py $(ARGS)

bench: setup ## measure what the README reports (ARGS='--help' lists the benchmarks)
	.venv/bin/python -m benchmarks $(ARGS)

train: setup ## train a model (ARGS='corpus.txt --tokenizer char --model mingru --out ckpts/mine')
	@.venv/bin/huginn train $(ARGS)

package: setup ## build the web tiers' zips for AWS Lambda into dist/ (ARGS='--only backend')
	@.venv/bin/huginn package $(ARGS)

deploy: setup ## put all tiers on AWS (ARGS='--dry-run' shows what would change and cost)
	@.venv/bin/huginn deploy $(ARGS)

lock: $(EXTRAS:%=lock-%) $(CLIENTS:%=lock-client-%) ## pin requirements/*.txt anew from pyproject.toml; needs uv

# dev.txt first: it holds all the extras, and the others take their versions from it.
lock-%: lock-dev
	$(COMPILE) --extra $* --constraint requirements/dev.txt --output-file requirements/$*.txt

lock-client-%:
	$(PIN) requirements/clients/$*.in --output-file requirements/clients/$*.txt

lock-dev:
	@test -n '$(UV)' || { echo "make lock needs uv: .venv/bin/python -m pip install uv" >&2; exit 1; }
	$(COMPILE) --extra dev --output-file requirements/dev.txt

clean: ## remove caches and build outputs; .venv and ckpts stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
