PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := $(shell sed -n 's/^uv==//p' constraints.txt)
MILVUS_VENV := .venv-milvus
CLIENTS_VENV := .venv-clients

.DEFAULT_GOAL := help
.PHONY: help setup demo docs test test-integration test-lowest test-all-pythons test-unit test-unit-with-models test-unit-without-models test-random lint generate clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv with pinned versions

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11, 3.12 or 3.13 is needed; say where it is with make PYTHON=…" >&2; exit 1; }
	@mkdir -p $(VENV) && date +%s > $(VENV)/.began
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
# A service starts some twenty Python processes, so compiling what they import once saves a minute.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[server,test]'
	@printf '%7.1f s  pinned versions installed\n' $$(( $$(date +%s) - $$(cat $(VENV)/.began) ))
	@touch $@

# The package of the Milvus server has a module with the name of our package, so it has an environment of its own.
$(MILVUS_VENV)/.installed:
	$(PYTHON) -m venv $(MILVUS_VENV)
	$(MILVUS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check milvus==2.3.5
	@touch $@

# Other people's clients need versions of their own. Without them their tests are skipped.
$(CLIENTS_VENV)/.installed: tests/support/embedding_clients.txt | setup
	$(PYTHON) -m venv $(CLIENTS_VENV)
	@if $(BIN)/uv pip install --quiet --python $(CLIENTS_VENV)/bin/python --requirement $<; then touch $@; \
	else rm -rf $(CLIENTS_VENV); echo "other people's clients are not installed, so they are not tested" >&2; fi

demo: setup ## start the service with the synthetic catalog; Ctrl-C ends it
	@exec $(BIN)/python -m demo.run $(DEMO_OPTIONS)

# Without the file that draws them, diagrams stay text.
docs: setup ## the site of the documentation, in .docs/site
	@command -v npm >/dev/null && $(MAKE) --no-print-directory node_modules/.installed || \
	  echo "npm has not installed what draws the diagrams: they stay text" >&2
	$(BIN)/python docs/make_site.py .docs/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

UNIT := $(BIN)/python -m pytest -q -m 'not slow' -p no:xdist
# Files go as they come, the long ones first; by default those of most tests would.
SIDE_BY_SIDE := $(BIN)/python -m pytest --no-loadscope-reorder
# Two services run beside all other tests, and while both wait, a third process has work for two cores. The tests
# below tests/alone need the whole machine, of which others may take a part: each is run once more if it fails, and
# the summary says so. Both calls are made. pytest ends with 5 where the options select no test: one call may.
test: setup $(MILVUS_VENV)/.installed $(CLIENTS_VENV)/.installed lint ## lint, types and all tests
	@failed=0; empty=0; \
	for call in '$(SIDE_BY_SIDE) -n 3 --ignore tests/alone' '$(BIN)/python -m pytest --reruns 1 tests/alone'; do \
	  echo "$$call"; $$call $(TEST_OPTIONS); code=$$?; \
	  case $$code in 0) ;; 5) empty=$$((empty + 1)) ;; *) failed=1 ;; esac; \
	done; [ $$failed = 0 ] && [ $$empty -lt 2 ]

test-random: override TEST_OPTIONS += --hypothesis-profile=random
test-random: test ## all tests, on other drawn examples each time: for every night

# Two processes side by side, as most time of the one goes into PyTorch and its relatives, which the other does
# not load. Processes of pytest-xdist would both load all. The first has some folders more, so that both take the
# same time.
UNIT_WITH_MODELS := $(addprefix tests/unit/,models demo benchmarks core milvus vitrine deployments/test_dependencies.py)
test-unit: setup ## quick unit tests, without services: the loop of a working day
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-unit-with-models test-unit-without-models

test-unit-with-models:
	@$(UNIT) $(UNIT_WITH_MODELS) $(TEST_OPTIONS)

test-unit-without-models:
	@$(UNIT) tests/unit $(UNIT_WITH_MODELS:%=--ignore %) $(TEST_OPTIONS)

test-integration: setup $(MILVUS_VENV)/.installed $(CLIENTS_VENV)/.installed ## tests that start databases and servers, without Ray's services
	$(SIDE_BY_SIDE) -n 2 tests/integration $(TEST_OPTIONS)

# In environments of their own, which stay: each takes as much disk as .venv. pyenv is to offer all that it has.
PYTHONS := 3.11 3.12 3.13
test-all-pythons: setup ## unit tests on each Python at hand
	@export PYENV_VERSION=$$(pyenv versions --bare 2>/dev/null | paste -s -d :); \
	for version in $(PYTHONS); do \
	  if ! python$$version -c '' 2>/dev/null; then echo "Python $$version is not at hand" >&2; continue; fi; \
	  $(BIN)/uv venv --quiet --allow-existing --python python$$version .venv-python$$version && \
	  $(BIN)/uv pip install --quiet --python .venv-python$$version --constraint constraints.txt --editable '.[server,test]' && \
	  .venv-python$$version/bin/python -m pytest -q -m 'not slow' -p no:xdist tests/unit $(TEST_OPTIONS) || exit 1; \
	done

LOWEST_VENV := .venv-lowest
test-lowest: setup ## unit tests on the oldest versions that pyproject.toml admits
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) $(LOWEST_VENV)
	$(BIN)/uv pip install --quiet --python $(LOWEST_VENV) --resolution lowest-direct --editable '.[server]'
# The tools of the tests come as new as they fit; what is there already stays. Old versions warn of what is new.
	$(BIN)/uv pip install --quiet --python $(LOWEST_VENV) --editable '.[server,test]'
	$(LOWEST_VENV)/bin/python -m pytest -q -m 'not slow' -p no:xdist -W default --disable-warnings tests/unit $(TEST_OPTIONS)

lint: setup ## ruff, mypy and, where npm is at hand, the checks of the page's JavaScript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if ! command -v npm >/dev/null; then echo "npm is not installed: the page's JavaScript is not checked" >&2; \
	elif ! $(MAKE) --no-print-directory node_modules/.installed; then \
	  echo "npm ci failed: the page's JavaScript is not checked" >&2; \
	else npm run lint; fi

node_modules/.installed: package.json package-lock.json
	npm ci --ignore-scripts
	@touch $@

generate: setup ## what is made from code and configuration: manifests, tables in the docs
	$(BIN)/python -m k8s.generate
	$(BIN)/python -m deployments.config_check.tables docs/operations.md
	$(BIN)/python -m deployments.http.app docs/openapi.json
	$(BIN)/typer vitrine.cli.main utils docs --name vitrine --title "The command line" --output docs/cli.md
	$(BIN)/python -m benchmarks.weights docs/sizing.md
	$(BIN)/python -m benchmarks.scale docs/scale.md

clean: ## remove environments and the demo's data
	rm -rf $(VENV) .venv-* node_modules .demo .docs
