# make demo   plays the sample recordings as a live stream
# make test   runs the tests           make lint   style and types           make all   both
#
# Needs Python 3.10 or newer, pip and make; everything else goes into .venv. What is installed there
# is installed again only when pyproject.toml has changed.

# The first that is new enough.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.10 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Slow networks: wait longer, try again, and go on showing progress.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --timeout 120 --retries 10

.PHONY: demo test lint all
.DEFAULT_GOAL := demo

demo: .venv/installed
	@$(BIN)/python -c 'import sounddevice' 2>/dev/null || \
	  echo "note: PortAudio is missing (Debian, Ubuntu: libportaudio2); only the microphone needs it, going on"
	@$(BIN)/python demo/live.py

test: .venv/installed-dev
	@echo "== tests"
	@$(BIN)/python -m pytest -q

lint: .venv/installed-dev
	@echo "== style (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== types (mypy)"
	@$(BIN)/mypy

all: lint test

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or newer is needed; found none (or name it: make PYTHON=...)"; exit 1; }
	@echo "== creating .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv 2>/dev/null || { \
	  echo "note: ensurepip is missing (Debian, Ubuntu: python3-venv); going on with the pip that is there"; \
	  $(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python $@ install pip; }

# torch first: then the range in pyproject.toml is already satisfied, and nothing larger is fetched.
.venv/installed: pyproject.toml | .venv/bin/python
	@echo "== installing torch (the largest part; some minutes on a slow network)"
	@$(PIP) "torch>=2.11,<2.14"
	@echo "== installing streamasr and what it needs"
	@$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "== installing what the tests need"
	@$(PIP) --editable ".[dev]"
	@touch $@
