# make sweep: install what is needed and run the shipped sweep.   make test: the same, and the tests.
# make gpu: everything that only a GPU can show, in 8 minutes; OUT is where the figures go.
# SPACE and ARGS are handed on: make sweep ARGS="search.num_trials=3 --output runs/short"
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SPACE ?= quickstart
ARGS ?=
OUT ?= runs/gpu
# Test files run side by side in so many processes; a file's tests share one.
TEST_PROCESSES ?= 2
# Handed to pip for torch alone, to choose another build of it.
TORCH_ARGS ?=
# pip says nothing but errors: its notices are not the user's business.
INSTALL := $(RUN) -m pip install --quiet --quiet --disable-pip-version-check

.PHONY: sweep test test-slow test-nightly check gpu clean

sweep: $(VENV)/.installed
	@$(RUN) -m symnoise_ray.tune $(SPACE) $(ARGS)

test: $(VENV)/.installed-dev
	$(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(RUN) -m pytest -m "slow and not nightly" -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-nightly: $(VENV)/.installed-dev
	$(RUN) -m pytest -m nightly -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

gpu: $(VENV)/.installed-dev
	@$(RUN) benchmarks/gpu.py --out $(OUT) $(ARGS)

# torch comes first and alone: with it in place, nothing asks for another build of it.
$(VENV)/.installed: requirements.txt pyproject.toml
	@echo "Installing into $(VENV) (once; some minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip
	@$(INSTALL) $(TORCH_ARGS) "$$(grep '^torch==' requirements.txt)"
	@$(INSTALL) -r requirements.txt
	@$(INSTALL) --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
