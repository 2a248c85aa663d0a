# One verb each; `make help` lists them. CI runs `make test`.
MODEL        ?= smollm2-135m
TARGET       ?= cpu
PRECISION    ?=
CAPABILITY   ?=
HTTP_PORT    ?= 8000
GRPC_PORT    ?= 8001
METRICS_PORT ?= 8002
OPENAI_PORT  ?= 8003
PYTHON       ?= python3
FUZZ_CASES   ?= 300
LOAD         ?= --streams 1,4,16 --duration 8s
LOAD_PROFILE ?= load/profiles/acceptance.toml

BIN        := .venv/bin
PIP        := $(BIN)/python -m pip --disable-pip-version-check
LOCKED     := $(PIP) install --quiet --no-deps --require-hashes
REPOSITORY := build/$(MODEL)/$(TARGET)/repository
NEED_MORE  := tensorrt # targets with packages of their own: requirements/NAME.txt
INSTALLED  := .venv/installed $(addprefix .venv/installed-,$(filter $(TARGET),$(NEED_MORE)))
PORTS      := --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT) --openai-port $(OPENAI_PORT)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install engine verify up serve down status logs chat lint format test test-slow test-clients test-gpu test-page fuzz \
        bench contracts load load-test lock clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "  MODEL=$(MODEL) TARGET=$(TARGET) PRECISION=$(or $(PRECISION),default) HTTP_PORT=$(HTTP_PORT) GRPC_PORT=$(GRPC_PORT) METRICS_PORT=$(METRICS_PORT) OPENAI_PORT=$(OPENAI_PORT)"

install: .venv/installed ## set up .venv: builder, runtime, server, clients

.venv/installed: requirements/base.txt requirements/server.txt pyproject.toml clients/pyproject.toml models/r1-nano/pyproject.toml \
                 load/pyproject.toml
	@echo "installing into .venv ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(LOCKED) -r requirements/base.txt
	@$(LOCKED) --upgrade --target .venv/tritonserver -r requirements/server.txt
	@$(PIP) install --quiet --no-deps --editable . --editable clients --editable load --editable models/r1-nano
	@touch $@

$(NEED_MORE:%=.venv/installed-%): .venv/installed-%: .venv/installed requirements/%.txt
	@echo "installing what target $* needs ..."
	@$(LOCKED) -r requirements/$*.txt
	@touch $@

.venv/installed-test: .venv/installed $(NEED_MORE:%=.venv/installed-%) requirements/test.txt requirements/torch.txt
	@echo "installing what the tests need ..."
	@$(LOCKED) -r requirements/test.txt
	@$(PIP) install --quiet -r requirements/torch.txt
	@touch $@

# The FP8 form of r1-nano is made from its bf16 weights when it is first asked for.
ifeq ($(MODEL),r1-nano-fp8)
engine: models/r1-nano/checkpoint-fp8/config.json
endif

models/r1-nano/checkpoint-fp8/config.json: models/r1-nano/checkpoint/model.safetensors models/r1-nano/r1_nano/fp8.py .venv/installed
	@$(BIN)/python -m r1_nano.fp8

engine: $(INSTALLED) ## build the engine and its Triton repository
	@$(BIN)/triune build --model $(MODEL) --target $(TARGET) $(PRECISION:%=--precision %) $(CAPABILITY:%=--compute-capability %)

verify: $(INSTALLED) ## run the built engine on this machine: numbers against the float weights, speeds, a report
	@$(BIN)/python -m triune_builder.verify_published --model $(MODEL) --target $(TARGET)

up: engine ## build if needed, then serve in the background
	@$(BIN)/triune up --repository $(REPOSITORY) $(PORTS)

serve: engine ## build if needed, then serve in the foreground
	@$(BIN)/triune serve --repository $(REPOSITORY) $(PORTS)

down: .venv/installed ## stop the server that `make up` started
	@$(BIN)/triune down

status: .venv/installed ## what is running, where, and how it is doing
	@$(BIN)/triune status

logs: .venv/installed ## the server's log
	@$(BIN)/triune logs

chat: .venv/installed ## talk to the server in the terminal
	@$(BIN)/python -m triune_client chat --url http://127.0.0.1:$(HTTP_PORT)

lint: .venv/installed-test ## ruff and strict mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: .venv/installed-test ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test: lint engine ## everything CI runs: lint, unit, property and real-server tests
	@$(BIN)/python -m pytest -m "not slow and not gpu" -rs

test-slow: .venv/installed-test engine ## the tests that take minutes
	@$(BIN)/python -m pytest -m "slow and not gpu" -rs

CLIENTS := tritonclient openai openai-agents pydantic-ai anthropic litellm langchain-openai langchain-nvidia-trt llama-index genai-perf aiperf

.venvs/client-%/installed: requirements/clients/%.txt
	@echo "installing the client $* ..."
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# The clients in JavaScript are skipped where there is no npm.
.venvs/client-javascript/installed: tests/clients_real/js/package.json tests/clients_real/js/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)
	@! command -v npm > /dev/null || npm ci --prefix $(@D) --no-audit --no-fund --loglevel=error
	@touch $@

# Perf Analyzer, which GenAI-Perf runs, is a program in the wheels of an older tritonclient; only that is used.
.venvs/perf-analyzer/installed: requirements/clients/perf-analyzer.txt
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(@D) -r $<
	@chmod +x $(@D)/bin/* && touch $@

test-clients: .venv/installed-test engine .venvs/perf-analyzer/installed $(CLIENTS:%=.venvs/client-%/installed) .venvs/client-javascript/installed ## the real clients, each in an environment of its own
	@TRIUNE_TEST_CLIENTS=1 $(BIN)/python -m pytest tests/clients_real -rs

test-gpu: .venv/installed-test ## the tests that need a GPU
	@$(BIN)/python -m pytest -m gpu -rs

test-page: .venv/installed-test .venvs/page/installed ## the chat page in headless Chromium, with checks of accessibility
	@$(BIN)/python -m pytest tests/gateway/test_page_in_chromium.py tests/gateway/test_page_with_r1_nano.py tests/gateway/test_page.py -rs

# npm's Chromium needs no root. Where it does not start for want of a system library: apt-get install chromium, which needs root
# and is preferred when it is there.
.venvs/page/installed: tests/gateway/browser/package.json tests/gateway/browser/package-lock.json
	@command -v npm > /dev/null || { echo "error: no npm; as root: apt-get install nodejs npm" >&2; exit 1; }
	@mkdir -p .venvs/page && cp $^ .venvs/page
	@npm ci --prefix .venvs/page --no-audit --no-fund --loglevel=error
	@touch $@

fuzz: .venv/installed-test ## some 11,000 random requests to a real server of r1-nano; FUZZ_CASES=300 of each kind
	@$(BIN)/triune build --model r1-nano --precision fp32
	@TRIUNE_FUZZ_CASES=$(FUZZ_CASES) TRIUNE_FUZZ_REPOSITORY=build/r1-nano/cpu/repository $(BIN)/python -m pytest tests/fuzz

bench: engine ## tokens/s and latencies beside the bare runtime, OpenVINO GenAI and llama.cpp
	@test -x .venvs/bench/bin/python || $(PYTHON) -m venv .venvs/bench
	@.venvs/bench/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/bench.txt
	@$(BIN)/python -m bench --repository $(REPOSITORY)

load: .venv/installed ## a short load on the running server, every answer checked; LOAD="--streams 8 --duration 1m", report in build/load
	@$(BIN)/triune load --running --html build/load/report.html --json build/load/result.json $(LOAD)

load-test: .venv/installed ## acceptance: a mixture of requests on the running server, with thresholds; LOAD_PROFILE=FILE
	@$(BIN)/triune load --running --profile $(LOAD_PROFILE)

contracts: .venv/installed ## write what is made from the declared options and models: configs, fields, the client's table, docs
	@$(BIN)/python -m triune_runtime.contracts.render

lock: ## write requirements/*.txt anew from requirements/*.in; UPGRADE=1: with the newest versions
	@$(PYTHON) requirements/lock.py $(UPGRADE:%=--upgrade)

clean: ## drop builds and caches, keep .venv
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
