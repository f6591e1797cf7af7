# Each target sets itself up in a virtual environment, from nothing.
#   make demo PYTHON=python3.12 VENV=/some/folder PIP_ARGS="--extra-index-url ..."
PYTHON ?= python3
VENV ?= .venv
CHROMIUM ?= chromium
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS)
RUN = HF_HUB_OFFLINE=1 $(VENV)/bin/python
REACHES_PYPI = from urllib.request import urlopen; urlopen('https://pypi.org/pypi/pip/25.0/json', timeout=5)

.PHONY: help demo test test-slow test-peers test-browser quality clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1: \2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## the README's picture, from nothing
	$(RUN) examples/demo.py --output demo.png

test: $(VENV)/.test ## tests, offline, on a CPU
	$(RUN) -m pytest -n auto --dist loadfile --durations=10

test-slow: $(VENV)/.test ## the slow tests
	$(RUN) -m pytest -m slow --ignore tests/peers --durations=10

test-peers: $(VENV)/.peers ## what transformers, TRL, PEFT and accelerate promise of any model; writes docs/compatibility.md
	$(RUN) -m pytest -m slow tests/peers --write-page docs/compatibility.md --durations=10

test-browser: $(VENV)/.browser ## the app in a browser
	CHROMIUM=$(CHROMIUM) $(RUN) -m pytest -m slow tests/test_app_browser.py --durations=10

quality: $(VENV)/.quality ## style, types, known vulnerabilities, secrets
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/detect-secrets-hook --exclude-files 'tests/.*|model_cards/.*\.json' $$(git ls-files)
	@if $(VENV)/bin/python -c "$(REACHES_PYPI)" 2>/dev/null; \
	then $(VENV)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt; \
	else echo "pypi.org is out of reach: the dependencies are not audited" >&2; fi

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.venv setup.cfg pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.venv setup.cfg pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e ".[test]"
	touch $@

$(VENV)/.peers: $(VENV)/.test
	$(PIP) -c constraints.txt -e ".[test,quantization]"
	touch $@

# Debian's browser, not Playwright's own; elsewhere: make test-browser CHROMIUM=/path/to/chrome
$(VENV)/.browser: $(VENV)/.test
	command -v $(CHROMIUM) || apt-get install -y chromium || { echo "as root: apt-get update && apt-get install chromium" >&2; exit 1; }
	$(PIP) -c constraints.txt -e ".[test,browser]"
	touch $@

$(VENV)/.quality: $(VENV)/.venv constraints.txt
	$(PIP) -c constraints.txt ruff mypy detect-secrets pip-audit
	touch $@

clean: ## removes the virtual environment
	rm -rf $(VENV)
