# One command each; every target prepares what it needs. `make help` lists them.
# Works with GNU make 3.81 and newer, on Linux and macOS.

.DEFAULT_GOAL := help
.PHONY: help install demo test check mutants power-cuts audit sbom bench scoreboard bad-inputs fuzz faults faults-soak schemas dashboards secrets stack stack-demo device engine constraints clean
.SUFFIXES:

ARGS ?=
export PYTHON

BIN := .venv/bin
RUNTIME := .venv/.installed-runtime
TESTING := .venv/.installed-test
TOOLS := build/tools/.installed
SUPPLY := build/tools/bin/python -m tests.supply

PACKAGES := $(wildcard schemas ingest dashboards tests)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

install: $(RUNTIME) ## put everything that is needed into .venv

demo: $(RUNTIME) ## show the whole thing working, in a browser (ARGS="--seconds 20 --headless --json")
	@$(BIN)/microcurrent demo $(ARGS)

test: $(TESTING) ## run the tests, fast ones first; installs what they need (ARGS="-k broker")
	@tests/setup.sh servers
	@tests/run.sh $(ARGS)

check: $(TESTING) $(TOOLS) ## generated files, secrets, bill of materials, known vulnerabilities (OFFLINE=1 leaves out the last)
	@$(BIN)/python -m compileall -q $(PACKAGES)
	@$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist worksteal tests/contract tests/supply $(ARGS)
	@$(SUPPLY).scan
	@$(SUPPLY).bill
ifdef OFFLINE
	@echo "audit: LEFT OUT, as OFFLINE=1 asks; 'make audit' tells what is known of the packages."
else
	@$(SUPPLY).audit
endif

audit: $(TESTING) $(TOOLS) ## is any package known to be vulnerable (ends with 3 where it could not ask)
	@$(SUPPLY).audit $(ARGS)

sbom: $(RUNTIME) $(TOOLS) ## write build/sbom.cdx.json, what is installed to run (ARGS="--environment /opt/microcurrent")
	@$(SUPPLY).bill $(ARGS)

mutants: $(TESTING) ## seeded bugs, put into copies of the program one by one: each must be caught (ARGS="no-dedupe")
	@$(BIN)/python tests/mutants/run.py $(ARGS)

power-cuts: $(TESTING) ## 10,000 courses of events through the journal; processes and machines die at any point
	@MICROCURRENT_TEST_CRASHES=10000 $(BIN)/python -m pytest -q -rA tests/unit/test_journal_crash.py $(ARGS)

bench: $(TESTING) ## measure throughput and latency on this machine
	@tests/setup.sh servers
	@$(BIN)/python tests/bench/run.py $(ARGS)

scoreboard: $(TESTING) ## every fault scenario through the real line, 20 seeds; a table by rule (ARGS="--seeds 3")
	@$(BIN)/python tests/scoreboard/run.py $(ARGS)

bad-inputs: $(TESTING) ## every bad input and attack against the real brokers; a table by row, also into docs/bad-inputs.md
	@tests/setup.sh servers
	@BAD_INPUTS_IDLE=1999 $(BIN)/python -m pytest -q tests/system/test_bad_inputs.py tests/system/test_unknown_devices.py --rows docs/bad-inputs.md $(ARGS)

fuzz: $(TESTING) ## look for input that nobody thought of, guided by coverage (MINUTES=10)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "atheris>=3,<4"
	@$(BIN)/python tests/fuzz/run.py --minutes $(or $(MINUTES),10) $(ARGS)

faults: $(TESTING) ## kill, cut and starve everything for ten minutes, and judge what is left (ARGS="--seed 7 --rows 3,4")
	@tests/setup.sh servers
	@$(BIN)/python tests/faults/run.py $(ARGS)

faults-soak: $(TESTING) ## mixed faults for MINUTES=60, with memory and open files watched
	@tests/setup.sh servers
	@$(BIN)/python tests/faults/run.py --rows 46 --minutes $(or $(MINUTES),60) $(ARGS)

schemas: $(RUNTIME) ## write schemas/generated/, docs/rules.md and .env.example again from models and rules
	@$(BIN)/microcurrent schemas export
	@$(BIN)/python -P -c "from ingest.rulebook import markdown; print(markdown(), end='')" > docs/rules.md
	@$(BIN)/python -P -c "from ingest.settings import example; print(example(), end='')" > .env.example

dashboards: $(RUNTIME) ## write dashboards/generated/ and docs/runbook.md again from the panels and alert rules
	@$(BIN)/microcurrent dashboards build
	@$(BIN)/python -P -c "from dashboards.alerting import runbook; print(runbook(), end='')" > docs/runbook.md

secrets: ## make the passwords of the stack in secrets/, where they are missing
	@python3 ingest/deploy/make_secrets.py

# Containers have users of their own; after a checkout with a strict umask they could not read these.
stack: engine secrets ## start broker, worker, InfluxDB and Grafana with Docker Compose, and say where they are
	@chmod -R a+rX ingest/deploy dashboards
	@docker compose up --detach --build
	@python3 ingest/deploy/make_secrets.py where

stack-demo: engine ## the same with 25 simulated devices
	@python3 ingest/deploy/make_secrets.py --demo
	@chmod -R a+rX ingest/deploy dashboards
	@COMPOSE_PROFILES=demo docker compose up --detach --build
	@python3 ingest/deploy/make_secrets.py where

device: engine ## a password for a device of the stack (ID=dev-1; CERTIFICATE=1 a certificate instead; REVOKE=1 takes all away)
ifdef CERTIFICATE
	@$(MAKE) --no-print-directory install
	@$(BIN)/microcurrent credentials create "$(ID)" --certificate --mosquitto secrets
else
	@python3 ingest/deploy/make_secrets.py device "$(ID)" $(if $(REVOKE),--revoke)
endif
	@docker compose exec -T mosquitto sh /mosquitto/config/broker.sh reload

engine:
	@docker compose version >/dev/null 2>&1 || { echo "The stack needs Docker with its compose plugin, and this machine has none; 'make demo' needs neither." >&2; exit 2; }

constraints: $(RUNTIME) ## write the versions that the image is built with again, from the newest that fit
	@rm -rf build/constraints && mkdir -p build && .venv/bin/python -m venv build/constraints
	@build/constraints/bin/python -m pip install --quiet --disable-pip-version-check . hatchling
	@{ echo "# What the image is built with. Written by 'make constraints'."; \
	    build/constraints/bin/python -m pip freeze --exclude microcurrent-telemetry; } > ingest/deploy/constraints.txt

clean: ## remove the virtual environment and what tests and builds leave behind
	@rm -rf .venv .pytest_cache .hypothesis build dist
	@find $(PACKAGES) -name __pycache__ -type d -prune -exec rm -rf {} +

# Their own environment: what looks at the packages is not among them.
$(TOOLS): tests/supply/tools.txt | $(RUNTIME)
	@rm -rf build/tools && $(BIN)/python -m venv build/tools
	@build/tools/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/supply/tools.txt
	@touch $(TOOLS)

# The stamps make the second call quick; a changed pyproject.toml installs again.
# Installing for tests is installing for running, and never the other way round.
$(TESTING): pyproject.toml tests/setup.sh
	@tests/setup.sh test
	@touch $(RUNTIME) $(TESTING)

$(RUNTIME): pyproject.toml tests/setup.sh
	@tests/setup.sh runtime
	@touch $(RUNTIME)
