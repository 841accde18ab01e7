# pilotkit: "make demo" shows it at work, "make test" tests all of it. Needs a Python 3.11 or later; the rest comes by pip
# into .venv, on demand and again whenever pyproject.toml or setup.py change. Another Python: make PYTHON=/path/to/python3

SHELL = /bin/sh
.DEFAULT_GOAL = help
.PHONY: help demo test check soak bench clean venv

READY = .venv/.ready
PYTHON =

help:
	@echo "make demo    real jobs through dispatcher and pilots, from event generation to a fitted mass (a minute)"
	@echo "make test    everything: check, the pilot on every Python found, the tests with real servers"
	@echo "make check   format, lint, types, layers and the quick tests"
	@echo "make soak    what takes long: 100,000 generated requests, minutes of chaos (half an hour)"
	@echo "make bench   measures what the promises in docs/performance.md are about"
	@echo "make clean   removes .venv and everything else that make and the tests made"

venv: $(READY)

# editable_mode=compat: one line with this folder's path instead of an import hook, which would make every start of Python
# in .venv 7 ms slower; the pilot is measured in there.
$(READY): pyproject.toml setup.py .ci/environment
	@python="$(PYTHON)"; python="$${python:-$$(.ci/environment find 3.11+)}" && \
		.ci/environment make .venv "$$python" --config-settings editable_mode=compat -e '.[server,demo,dev]'
	@touch $@

demo: $(READY)
	@.venv/bin/pilotkit demo

test: $(READY)
	@.venv/bin/python .ci/suite.py test

check: $(READY)
	@.venv/bin/python .ci/suite.py check

soak: $(READY)
	@.venv/bin/python .ci/suite.py soak

bench: $(READY)
	@.venv/bin/python -m tests.bench

clean:
	@rm -rf .venv .venvs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
