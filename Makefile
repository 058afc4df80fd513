# The two commands of the README are `make draw` and `make test`; both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a red apple, 3d style
OUT ?= apple.png

.PHONY: draw browser ready test check format bench wheel emoji clean

# Python compiles what is imported when it is first imported, a twentieth of what is installed; pip would compile all.
INSTALL = $(BIN)/pip install --quiet --no-compile --constraint constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable ".[dev]"
	# Apart from the rest, and without the torchvision that it asks for: tests compare with its formulas.
	$(INSTALL) --no-deps --upgrade --target $(VENV)/peers torch-fidelity
	touch $@

draw: $(VENV)/.installed  ## Draw PROMPT with the shipped model into OUT.
	$(BIN)/muse generate "$(PROMPT)" --seed 1 --out $(OUT)

check: $(VENV)/.installed-dev  ## Lint, types and floors.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

BROWSERS = $(shell which chromium chromium-browser google-chrome 2>/dev/null)

browser:  ## Debian's Chromium, in which the page is tested, where this user may install it.
	@[ -n "$(BROWSERS)" ] || { [ "$$(id -u)" = 0 ] && apt-get update --quiet=2 \
		&& apt-get install --yes --quiet=2 --no-install-recommends chromium >/dev/null; } \
		|| echo "There is no Chromium and you may not install it: the page's tests in a browser are left out."

ready:
	@$(MAKE) --no-print-directory --jobs=2 browser check  # side by side, as either waits for downloads

test: export PYTHONDONTWRITEBYTECODE =  # or each process that the tests start compiles all of ours once more
test: ready  ## Everything that CI runs.
	$(BIN)/pytest --numprocesses 2 --dist loadgroup $(if $(BROWSERS),,-m "not browser")

format: $(VENV)/.installed-dev  ## Rewrite the code as the linter wants it.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev  ## All that a processor can measure of speed, a table each; half an hour.
	for name in generate superres picture train_step vqgan tokenize data superres_cost commands serve_load; do \
		echo; echo "## $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

wheel: $(VENV)/.installed-dev  ## Build the wheel into dist/.
	$(BIN)/python -m build --no-isolation --wheel

emoji: $(VENV)/.installed-dev  ## Build the data and train the shipped model from nothing.
	PATH="$(CURDIR)/$(BIN):$$PATH" bash projects/emoji/train.sh

clean:
	rm -rf $(VENV) dist
