# asan: everything once more with AddressSanitizer and UBSan, in build/asan; runs the unit tests
# there, and a few seeds of the simulator once there is one.

ASAN_MAKE = $(MAKE) B=build/asan SAN='-fsanitize=address,undefined -fno-sanitize-recover=undefined' OPT='-O1 -fno-omit-frame-pointer'
ASAN_RUN  = ASAN_OPTIONS=detect_stack_use_after_return=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
ASAN_SIM_SEEDS ?= 20

asan:
	+$(Q)$(ASAN_MAKE) all unit $(if $(SIM_SRC),build/asan/sim)
	$(Q)$(ASAN_RUN) build/asan/unit
	$(Q)$(if $(SIM_SRC),$(ASAN_RUN) build/asan/sim --seeds $(ASAN_SIM_SEEDS))

.PHONY: asan
