# Everything a person runs. Each target works as the first command on a fresh clone with Python 3.11, make and git.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest
NEWEST := .venv-newest
CLIENTS ?= 2.37 3.57
# ogx needs a Python newer than the oldest of ours, and is left out where there is none.
ifneq ($(filter test-servers test-all,$(MAKECMDGOALS)),)
OGX_PYTHON := $(shell PYTHONPATH=tests "$(PYTHON)" -c 'from release.pythons import find_python; print(find_python("3.12") or "")')
endif
# Every task of Airflow is a process of its own; without bytecode each compiles all that it imports.
export PYTHONDONTWRITEBYTECODE :=
PIP := python -m pip install --quiet --quiet --disable-pip-version-check

.PHONY: help setup demo up test test-long test-all distributed test-oldest test-client test-servers newest chaos simulate check release-check bench million pictures clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

setup: $(READY) ## build .venv with everything pinned (2 to 3 minutes, once)

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name it with: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)
	@echo "Installing Airflow and everything beside it into $(VENV), as pinned in constraints.txt (2 to 3 minutes)."
	@$(BIN)/$(PIP) pip -c constraints.txt
	@$(BIN)/$(PIP) -e '.[dev]' -c constraints.txt
	@touch $@

$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	@"$(PYTHON)" -m venv $(OLDEST)
	@echo "Installing the oldest Airflow that is supported into $(OLDEST), as pinned in constraints-oldest.txt."
	@$(OLDEST)/bin/$(PIP) -e '.[dev]' -c constraints-oldest.txt
	@touch $@

# Only what another client brings; all else is taken from $(VENV).
.venv-client-%/.ready: $(READY)
	@$(BIN)/python -m venv --clear --without-pip $(@D)
	@$(@D)/bin/python -c 'import sys, sysconfig; from pathlib import Path; \
	  Path(sysconfig.get_path("purelib"), "beside.pth").write_text(f"import site; site.addsitedir({sys.argv[1]!r})\n")' \
	  "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --quiet --disable-pip-version-check 'openai==$*.*'
	@touch $@

.venv-server-litellm/.ready: SERVER_PYTHON = $(PYTHON)
.venv-server-ogx/.ready: SERVER_PYTHON = $(OGX_PYTHON)

.venv-server-%/.ready: tests/foreign_servers/%.txt
	@echo "Installing $* into $(@D), as pinned in $<."
	@"$(SERVER_PYTHON)" -m venv --clear $(@D)
	@$(@D)/bin/$(PIP) -r $<
	@touch $@

demo: $(READY) ## 20,000 real texts through a real Airflow and an emulated OpenAI (about 2 minutes)
	@PYTHONPATH=include $(BIN)/python -m demo $(ARGS)

up: $(READY) ## Airflow with its UI on this machine, the emulator beside it; Ctrl-C stops all
	@PYTHONPATH=include $(BIN)/python -m demo.up

test: $(READY) ## the tests, every promise once: under ten minutes; ARGS=tests/planning for some of them
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	# Three on two cores: a quarter of their time they wait. Those that start a whole Airflow want the machine alone.
	@failed=0; \
	$(BIN)/python -m pytest -m "not long and not system" -n 3 --dist loadfile --no-loadscope-reorder || failed=1; \
	$(BIN)/python -m pytest -m "not long and system" tests/system || failed=1; \
	exit $$failed
endif

test-long: $(READY) ## what takes longer: kills, chaos, browsers, nights, the compose file, and more of the same
	@failed=0; \
	$(BIN)/python -m pytest -m "long and not system" -n 3 --dist loadfile --no-loadscope-reorder \
	  --ignore=tests/foreign_servers || failed=1; \
	$(BIN)/python -m pytest tests/distributed || failed=1; \
	$(BIN)/python -m pytest -m "long and system" --ignore=tests/distributed || failed=1; \
	exit $$failed

test-all: test test-long test-servers ## all tests, as CI runs them

distributed: $(READY) ## docker-compose.yaml without Docker: 60 shards while its parts are killed
	$(BIN)/python -m pytest tests/distributed $(ARGS)

test-oldest: $(OLDEST)/.ready ## operators, triggers and the main DAG on the oldest Airflow that is supported
	$(OLDEST)/bin/python -m pytest -W default -n 2 --dist loadfile tests/openai_api tests/sending tests/hooks tests/triggers \
	  $(addprefix tests/operators/test_,composing.py costs.py done_steps.py healing.py mapped_skips.py refusals.py same_run_again.py task_decorator.py task_group.py) \
	  tests/dags/test_openai_batch.py \
	  tests/plugin/test_wake.py::test_of_many_that_resume_one_task_at_once_one_does $(ARGS)

test-client: $(foreach client,$(CLIENTS),.venv-client-$(client)/.ready) ## the client's tests with its oldest and its newest version (CLIENTS=3.57)
	@failed=0; \
	for client in $(CLIENTS); do \
	  echo "With openai $$client:"; \
	  .venv-client-$$client/bin/python -m pytest -q -W default -m "not long and not system" -n 2 --dist loadfile \
	    tests/openai_api tests/sending tests/hooks $(ARGS) || failed=1; \
	done; \
	exit $$failed

test-servers: $(READY) .venv-server-litellm/.ready $(if $(OGX_PYTHON),.venv-server-ogx/.ready) ## the main DAG through servers nobody here wrote: LiteLLM's proxy, ogx
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/foreign_servers $(ARGS)

newest: ## the quick tests with the newest of every dependency, in an environment built anew; for maintainers
	@rm -rf $(NEWEST)
	@"$(PYTHON)" -m venv $(NEWEST)
	@echo "Installing the newest of everything into $(NEWEST), without constraints."
	@# pip tries one release of boto after the other for longer than anybody waits.
	@$(NEWEST)/bin/$(PIP) uv
	@# Of all that hold one another back, Airflow is not to be the one that gives way.
	@$(NEWEST)/bin/uv pip install --quiet --python $(NEWEST)/bin/python -e '.[dev]' \
	  "$$(sed -n 's/^apache-airflow==/apache-airflow>=/p' constraints.txt)"
	@echo "Other than in constraints.txt:"
	@awk -F== 'NR == FNR { pinned[tolower($$1)] = $$2; next } NF == 2 && pinned[tolower($$1)] != $$2 \
	  { print "  " $$1, (pinned[tolower($$1)] ? pinned[tolower($$1)] : "(none)"), "->", $$2 }' \
	  constraints.txt <($(NEWEST)/bin/python -m pip freeze --exclude-editable)
	$(NEWEST)/bin/python -m pytest -m "not long and not system" -n 2 --dist loadfile $(ARGS)

chaos: $(READY) ## more jobs while parts are killed and OpenAI misbehaves: RUNS=100 SEED=7, ONLY=3 for one of them
	CHAOS_RUNS=$(or $(RUNS),15) CHAOS_SEED=$(SEED) CHAOS_ONLY=$(ONLY) $(BIN)/python -m pytest tests/chaos $(ARGS)

simulate: $(READY) ## 10,000 jobs under a virtual clock, with faults and kills (SEEDS=n, or ARGS='--seed n' for one)
	@PYTHONPATH=include:tests $(BIN)/python -m simulation --seeds $(or $(SEEDS),10000) $(ARGS)

check: $(READY) ## lint, format, types, layers, compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/project/test_layers.py
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml

release-check: $(READY) ## build what is published and load it with each Python there is (ARGS=--unreleased to rehearse)
	@PYTHONPATH=include:tests $(BIN)/python -m release $(ARGS)

bench: $(READY) ## measure beside the alternatives
	PYTHONPATH=include:tests $(BIN)/python -m bench

million: $(READY) ## a million requests through a real Airflow on PostgreSQL (40 minutes; ARGS='--requests 100000' for fewer)
	PYTHONPATH=include:tests $(BIN)/python -m bench million $(ARGS)

pictures: $(READY) ## take the README's pictures of a running demo (4 minutes, needs Chromium)
	PYTHONPATH=include:tests $(BIN)/python docs/pictures/take.py

clean: ## remove what runs leave behind; .venv stays
	rm -rf .run .mypy_cache .ruff_cache .pytest_cache dist build
