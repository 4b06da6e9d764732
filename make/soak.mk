# make soak: what make check runs, for long: 100 rounds of the crash test, 500 of the cluster's, 5000 seeds of each scenario of the simulator, a minute of each
# fuzzer, the long versions of the scripts (LONG=1), and the planted bugs. An hour or two. SUITES="crash sim" runs only these.
# CRASH_ROUNDS, ROUNDS (of the cluster), SIM_SEEDS and FUZZ_SECONDS say how much.

soak:
	@deploy/install-deps all
	@SOAK=1 bash tests/check.sh $(SUITES)
ifeq ($(SUITES),)
	@$(MAKE) -s mutants
	@$(MAKE) -s scale
endif

.PHONY: soak
