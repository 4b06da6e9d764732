# The simulator: `make sim` runs SEEDS seeds of every scenario (or of SCENARIO=…), and some of them twice, because a
# seed must be a run; `make sim SEED=n` runs one again. `make mutants` builds the planted bugs in (build/mutants) and demands that the
# simulator finds each of tests/sim/plants, and, which `make mutants-unit` does alone, unit tests (of access control, of servers that lie, and of what is free) those of
# tests/unit/plants; `make mutant PLANT=… SCENARIO=… SEED=n` shows one.
SEEDS    ?= 100
FIRST    ?= 1
SCENARIO ?=
SIM_ARGS  = $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SEED),--seed $(SEED),--first $(FIRST) --seeds $(SEEDS)) $(if $(TRACE),--trace)
MUTANTS_MAKE = $(MAKE) B=build/mutants PLANTS=-DAQ_PLANTS

$(B)/unit: $(B)/obj/tests/sim/catalog_sim.o
$(B)/sim: $(B)/obj/tests/unit/blktest.o
# A catalog's URL leads to a simulated one there (tests/sim/catalog_url.c)
$(B)/sim: LDFLAGS += -Wl,--wrap=catalog_etcd_open,--wrap=catalog_sqlite_open,--wrap=store_status_members

sim: $(B)/sim
	$(Q)$(B)/sim $(SIM_ARGS)
	$(Q)$(if $(SEED),,$(B)/sim $(if $(SCENARIO),--scenario $(SCENARIO)) --twice --seeds 10)

mutants: mutants-unit
	+$(Q)$(MUTANTS_MAKE) build/mutants/sim
	$(Q)tests/sim/mutants.sh build/mutants/sim

mutants-unit:
	+$(Q)$(MUTANTS_MAKE) build/mutants/unit
	$(Q)tests/unit/mutants.sh build/mutants/unit

mutant:
	+$(Q)$(MUTANTS_MAKE) build/mutants/sim
	$(Q)build/mutants/sim --plant $(PLANT) $(SIM_ARGS)

.PHONY: sim mutants mutants-unit mutant
