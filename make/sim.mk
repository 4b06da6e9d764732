# The simulator: `make sim` runs seeds of every scenario, `make sim SEED=n` one seed again,
# `make mutants` runs it over planted bugs, each of which it must find.
SEEDS    ?= 100
SCENARIO ?=

$(B)/unit: $(B)/obj/tests/sim/catalog_sim.o
