# asan: everything once more with AddressSanitizer and UBSan, in build/asan; runs the unit tests
# there, and ASAN_SIM_SEEDS seeds of each scenario of the simulator. asan-interop: the scripts against real tools (or SCRIPTS=) with
# that build, some 8 minutes.

ASAN_MAKE = $(MAKE) B=build/asan SAN='-fsanitize=address,undefined -fno-sanitize-recover=undefined' OPT='-O1 -fno-omit-frame-pointer'
ASAN_RUN  = ASAN_OPTIONS=abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
ASAN_SIM_SEEDS ?= 20

asan:
	+$(Q)$(ASAN_MAKE) all unit
	$(Q)$(ASAN_RUN) build/asan/unit
ifneq ($(wildcard tests/sim/main.c),)
	+$(Q)$(ASAN_RUN) $(ASAN_MAKE) sim SEEDS=$(ASAN_SIM_SEEDS)
endif

asan-interop:
	+$(Q)$(ASAN_MAKE) all tools
	$(Q)B=build/asan bash tests/run.sh $(SCRIPTS)

.PHONY: asan asan-interop
