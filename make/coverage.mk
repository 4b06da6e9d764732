# coverage: which lines of parallax/ and server/ the simulator runs: everything once more with gcov, in build/coverage; COVERAGE_SEEDS
# (300) seeds of each scenario (of SCENARIO=, if given), then a line for each file, and the sum. UNRUN=FILE.c shows that file's lines that never ran.

COVERAGE_MAKE = $(MAKE) B=build/coverage SAN='--coverage' OPT='-O1 -fno-inline'
COVERAGE_SEEDS ?= 300

coverage:
	+$(Q)$(COVERAGE_MAKE) build/coverage/sim
	$(Q)bash tests/coverage.sh build/coverage $(COVERAGE_SEEDS) '$(SCENARIO)' '$(UNRUN)'

.PHONY: coverage
