# make demo   set up, then open the page on the bundled model
# make test   set up with what the tests need, then run them (make test PYTEST="-k sampling" for some)
# make check  lint, formatting, types
# make bench  measure how fast the bundled model draws here (make bench BENCH="--model aim-xl --random-weights" for others), then let it
#             race the Transformer, with random weights for both (make bench RACE="--model aim-xl --random-weights --gates"), and see how
#             fast the page answers meanwhile, and what it bears in a minute of 64 clients; fails where the race was not fair, the
#             machine not quiet, or a picture wrong or lost
# make setup  only set up
# PYTHON=python3.12 picks the interpreter, VENV=path another place than .venv.

PYTHON ?= python3
VENV ?= .venv
PYTEST ?= -n 2
BENCH ?= --model aim-s --batch 1,4 --repeats 3
RACE ?= --model aim-s --against gpt-s --random-weights --gates
RUN := $(VENV)/bin/python
PROJECT := pyproject.toml requirements.txt

.PHONY: setup demo test check bench
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready
	@echo "Ready in $(VENV). Next: make demo"

demo: $(VENV)/.ready
	$(RUN) -m aim demo

test: $(VENV)/.ready-test
	$(RUN) -m pytest $(PYTEST)

check: $(VENV)/.ready-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.ready
	$(RUN) -m aim bench speed $(BENCH)
	$(RUN) -m aim bench race $(RACE)
	$(RUN) -m aim bench page
	$(RUN) -m aim bench load --clients 64 --minutes 1

$(VENV)/.ready: $(PROJECT) | $(RUN)
	@$(announce)
	$(RUN) -m pip install --editable .
	@touch $@

$(VENV)/.ready-test: $(PROJECT) | $(RUN)
	@$(announce)
	@echo "  tests              about 0.4 GB: pytest, Playwright (without a browser: the system's chromium is used), Triton, ruff, mypy"
	$(RUN) -m pip install --editable '.[test,dev]'
	@touch $(VENV)/.ready $@

$(RUN):
	@$(check_python)
	$(PYTHON) -m venv $(VENV)

define check_python
command -v $(PYTHON) >/dev/null || { \
  echo "$(PYTHON) is not there. Install Python 3.10 to 3.13 (Debian, Ubuntu: sudo apt-get install python3 python3-venv; macOS: brew install python@3.12), or name one: make PYTHON=python3.12" >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); this project needs Python 3.10 to 3.13. Name one: make PYTHON=python3.12" >&2; exit 1; }; \
$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
  echo "$(PYTHON) lacks the venv module. Debian, Ubuntu: sudo apt-get install python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" >&2; exit 1; }
endef

define announce
echo "Setting up $(VENV). pip, with your own settings (PIP_* variables, pip.conf), downloads what is neither there nor in its cache:"; \
if torch=$$($(RUN) -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null); then \
  echo "  PyTorch            is there: $$torch"; \
else \
  echo "  PyTorch            Linux: about 3 GB, as the default build brings CUDA libraries; macOS: about 0.1 GB"; \
  echo "                     (about 0.2 GB without CUDA: point pip at PyTorch's CPU index first; README.md, Install, says how)"; \
fi; \
echo "  everything else    about 0.1 GB: Gradio, NumPy, pandas, Pillow and what they need"
endef
