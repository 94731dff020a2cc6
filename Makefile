# make demo   the main job, on a real slide: segment, correct, fine-tune, segment better
# make test   linters, then the tests
# Both set up .venv first and install the tested versions of constraints.txt.
#
# make install         the environment alone
# make coverage        the same as make test, and which lines no test runs; half as long again
# make lint            ruff, mypy, npe2 validate
# make docs-pictures   the pictures of the README and the tutorial
# make constraints     writes the installed versions into constraints.txt
# make clean           removes the environment and everything that was made

PYTHON ?= python3
SLIDE ?=
OUTPUT ?= demo-output
WORKERS ?= 2
PYTEST_ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed

# Windows are drawn by a virtual X server where there is no display; the tests always use one, so that they do
# not take the keyboard of whoever runs them, and Qt is told so, because in a Wayland session it would not ask X.
ifeq ($(shell uname -s),Linux)
XVFB := QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1600x1000x24"
ifeq ($(DISPLAY)$(WAYLAND_DISPLAY),)
WINDOWED := $(XVFB)
endif
endif

.PHONY: help demo test coverage lint docs-pictures install constraints system clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: system $(INSTALLED)
	$(WINDOWED) $(BIN)/napari-genselfdiff demo --output "$(OUTPUT)" $(if $(SLIDE),--slide "$(SLIDE)")

# One thread a worker: torch's threads would fight for the cores. A file stays on one worker. Not loadgroup: pytest-xdist 3.8 ignores its groups under pytest 9.2
# (https://github.com/pytest-dev/pytest-xdist/issues/1386).
test: system lint
	OMP_NUM_THREADS=1 $(XVFB) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

coverage:
	$(MAKE) test PYTEST_ARGS="--cov --cov-report=term $(PYTEST_ARGS)"

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/npe2 validate --imports napari-genselfdiff

docs-pictures: system $(INSTALLED)
	$(WINDOWED) $(BIN)/python docs/make_pictures.py

install: system $(INSTALLED)

# Local versions like +cpu are cut off: package indexes do not have them.
constraints:
	{ grep '^#' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | sed -e '/^pip==/d' -e '/^#/d' -e 's/+[^ ]*$$//'; } > .constraints
	mv .constraints constraints.txt

system:
	@tools/system-libraries.sh

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: $(PYTHON) is missing or older than 3.11, name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[all,dev,docs]"
	@touch $@

clean:
	rm -rf .venv build dist demo-output .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
