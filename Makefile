# The few commands that people need. All use the virtual environment in .venv.
PYTHON = .venv/bin/python

.PHONY: install test test-slow test-consumers check format docs

install:  ## virtual environment with everything for development
	python3 -m venv .venv
	.venv/bin/pip install -e '.[dev]'

test:  ## what CI runs
	$(PYTHON) -m pytest -n 3

test-slow:  ## long tests: the fault campaign
	$(PYTHON) -m pytest -m slow

test-consumers:  ## exports in other people's programs, in a virtual environment without this package
	.venv/bin/pip install -q '.[test,export]'
	python3 -m venv .venv-consumers
	.venv-consumers/bin/pip install -q -r tests/consumers/requirements.txt
	KERASGREEDY_CONSUMERS=$(CURDIR)/.venv-consumers/bin/python $(PYTHON) -m pytest -m consumers

check:  ## format, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

format:
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

docs:  ## reference pages from the schema
	$(PYTHON) -m kerasgreedy.spec.reference docs
