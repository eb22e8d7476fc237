# Each target sets up an environment first, which takes time once.
PYTHON ?= python3.11
# A folder of ready wheels (mmcv), if you have one.
WHEELS ?= ../shared/wheels

# The toolboxes: openmmlab, or onedl, which continues them. Each has an environment of its own.
STACK ?= openmmlab
VENV := $(if $(filter openmmlab,$(STACK)),.venv,.venv-$(STACK))

RUN := $(VENV)/bin/python
# Of the demo: regionvit, focal, rmt or vil; LONG=1 trains three times as long.
FAMILY ?= regionvit
LONG ?=
SEED ?=

# Of the gallery: whose models, a scene that none of them was trained on, and the query on it.
FAMILIES := regionvit focal rmt vil
SCENE := data/demo/images/validation/000011.jpg
POINT := 0.58 0.36

# Tests run on this many cores, each process on one.
CORES ?= $(shell c=$$(nproc 2>/dev/null || echo 2); [ $$c -gt 8 ] && echo 8 || echo $$c)
PYTEST := -m pytest -n $(CORES) --dist worksteal
# What needs mmcv-lite, mmengine and torch alone runs on the oldest of them, too.
OLDEST_PYTHON ?= python3.10
OLDEST := .venv-oldest
CORE_TESTS := tests/test_ops tests/test_layers tests/test_backbones tests/test_checkpoints

.PHONY: help setup demo gallery lint test test-oldest coverage sweep zoo

help:
	@echo 'make demo   train, evaluate and draw a small Mask R-CNN with RegionViT; FAMILY=focal|rmt|vil,'
	@echo '            LONG=1: three times as long, SEED=N'
	@echo 'make gallery  draw what the four backbones of the demo see: docs/gallery.jpg (trains what is not there)'
	@echo 'make test   check the style and types, then run the tests'
	@echo 'make coverage     which lines the tests reach'
	@echo 'make test-oldest  the core on the oldest versions, in an environment of its own'
	@echo 'make sweep  the long tests: every config trains and is evaluated (2 cores: about an hour),'
	@echo "            then make test STACK=onedl"
	@echo 'make zoo    count all configs, and make docs/model_zoo.md and the metafiles again'
	@echo 'make lint   check the style and types only'
	@echo 'make setup  only set up .venv/, which the others do too'
	@echo "STACK=onedl  with any but test-oldest: OneDL's toolboxes, in .venv-onedl/"

setup:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	'Set-up needs Python 3.11 or newer, and "$(PYTHON)" is not one: make PYTHON=/path/to/python3.11' \
	>&2; exit 1; }
	@$(PYTHON) tools/setup_env.py --stack '$(STACK)' --venv '$(VENV)' --wheels '$(WHEELS)'

demo: setup
	@$(RUN) tools/demo.py $(FAMILY) $(if $(LONG),--long) $(if $(SEED),--seed $(SEED))

gallery: setup
	@for family in $(FAMILIES); do \
	test -f work_dirs/demo_$$family/last_checkpoint || $(RUN) tools/demo.py $$family || exit 1; done
	@rm -f docs/gallery.jpg
	@$(RUN) tools/visualize.py $(SCENE) $$(for family in $(FAMILIES); do \
	echo work_dirs/demo_$$family/$$(cat work_dirs/demo_$$family/last_checkpoint); done) \
	--point $(POINT) --gallery docs/gallery.jpg

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

test: lint
	$(RUN) $(PYTEST)

sweep: setup
	$(RUN) $(PYTEST) -m sweep
	$(if $(filter openmmlab,$(STACK)),$(MAKE) test STACK=onedl)

coverage: setup
	$(RUN) -m coverage erase
	$(RUN) -m coverage run $(PYTEST)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

test-oldest: $(OLDEST)/ready
	$(OLDEST)/bin/python $(PYTEST) $(CORE_TESTS)

$(OLDEST)/ready: requirements/oldest.txt
	@$(OLDEST_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null || { echo \
	'"$(OLDEST_PYTHON)" is no Python 3.10: make test-oldest OLDEST_PYTHON=/path/to/python3.10' \
	>&2; exit 1; }
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -r requirements/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-deps -e .
	touch $@

zoo: setup
	$(RUN) tools/complexity.py --check
	$(RUN) tools/make_model_zoo.py
