# RouteDK-lite. `make` alone lists the targets.
PYTHON ?= python3
# Address of an extra package index to take torch from (README, "Which torch"). Empty: pip's default build.
TORCH_INDEX ?=
# DATA=no builds without fetching the public sessions (14 MB, once).
DATA ?=
# Arguments for pytest, e.g. PYTEST_ARGS="-k metrics -n 4". Two processes use two cores.
PYTEST_ARGS ?= -n 2 --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install book test lint format results clean distclean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --python $(BIN)/python install pip
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[notebook,book,test]'
	@touch $@

install: $(STAMP) ## create .venv and install the package, the book's tools and the test tools

book: $(STAMP) ## execute the notebooks that changed, build the site, print where index.html is
	$(BIN)/python scripts/build_book.py $(if $(filter no,$(DATA)),--no-data)

test: lint book ## lint, execute the notebooks that changed (nbmake), build the site, run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## check the code style of the package, the tests and the notebooks
	$(BIN)/ruff check .

format: $(STAMP) ## rewrite code in the house style, strip the notebooks' outputs
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout $(wildcard notebooks/*.ipynb)

results: $(STAMP) ## print the recorded results as a table
	$(BIN)/routedk results

clean: ## remove the built site and the executed notebooks
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

distclean: clean ## remove .venv as well
	rm -rf $(VENV)
