# Everything a person does with a checkout. `make` alone lists it.
SHELL := /bin/sh
PYTHON := .venv/bin/python
STAMP := .venv/.longhaul-setup
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q
.DEFAULT_GOAL := help
# Where it is set, each of the many processes of a run compiles our code anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup page run stop check test bench bench-peers bench-viewers bench-context bench-bill bench-calls chaos lock models settings-doc clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Make .venv/ from the hashed lock file and get the Temporal server. The second time takes no time.
	@temporal=$$(cat $(STAMP)); [ -z "$$temporal" ] || [ -x "$$temporal" ] || scripts/setup
	@$(PYTHON) -m scripts.build_page || true

page: setup ## Build the chat page in web/ anew, if its sources have changed.
	@$(PYTHON) -m scripts.build_page

$(STAMP): requirements-dev.lock scripts/setup
	@scripts/setup

run: setup ## Start everything on this machine; Ctrl-C stops it.
	@.venv/bin/longhaul up

stop: setup ## Stop what runs in this checkout.
	@.venv/bin/longhaul down

check: setup ## Format, lint, types and the tests that need no server but their own Temporal. About a minute.
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q -n 2 --dist worksteal -m "not integration" $(ARGS)

test: setup ## All tests, with PostgreSQL, Redis and Temporal as real servers. ARGS="-k name" picks some.
	@scripts/test_setup
	$(PYTHON) -m pytest -n 4 --dist worksteal $(ARGS)

bench: setup ## The benchmarks in bench/.
	$(PYTHON) -m bench $(ARGS)

bench-peers: setup ## Longhaul beside other libraries on Temporal; writes bench/RESULTS.md.
	$(PYTHON) -m bench.peers $(ARGS)

bench-viewers: setup ## How far behind 1,000 viewers are and what they and polls cost.
	$(PYTHON) -m bench.viewers $(ARGS)

bench-context: setup ## 300 turns each of English, Chinese and base64 in a window of 16,000 tokens.
	$(PYTHON) -m bench.context $(ARGS)

bench-bill: setup ## 500 turns with random faults: the ledger against the endpoint's bill. ARGS="--kill-every 5" kills workers.
	$(PYTHON) -m bench.bill $(ARGS)

bench-calls: setup ## One turn with 100 tool calls of 5 KB in a conversation of 200,000 tokens.
	$(PYTHON) -m bench.calls $(ARGS)

chaos: setup ## Kill processes of a running stack at random moments and count lost messages (none).
	$(PYTHON) -m bench.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

lock: ## Resolve the dependencies again (needs uv).
	$(LOCK) -o requirements.lock
	$(LOCK) --extra dev -o requirements-dev.lock

models: setup ## Write longhaul/llm/models.json from the newest table of LiteLLM.
	$(PYTHON) -m scripts.model_table

settings-doc: setup ## Write docs/settings.md from the settings' own definition.
	$(PYTHON) -m scripts.settings_doc

clean: ## Remove .venv/ and tool caches; what the stack keeps in .longhaul/ stays.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
