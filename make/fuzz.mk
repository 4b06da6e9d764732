# Fuzzing with clang's libFuzzer: every tests/fuzz/NAME.c is a target, its corpus is tests/fuzz/corpus/NAME.
#   make fuzz          build them all, and the library under them, with ASan and UBSan, into build/fuzz/
#   make fuzz-brief    run each for FUZZ_SECONDS (5) over its corpus; what it finds new goes to build/fuzz/new/NAME
#   make fuzz-NAME     run one until it is stopped (or for FUZZ_SECONDS, if given)
# A failing input is kept as build/fuzz/crash-NAME-…; run it again with: build/fuzz/NAME FILE

FUZZ_CC      ?= clang
FUZZ_SAN     := -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_TARGETS := $(FUZZ_SRC:tests/fuzz/%.c=$(B)/fuzz/%)
FUZZ_OBJ     := $(LIB_SRC:%.c=$(B)/fuzz/obj/%.o) $(GEN_C:$(B)/gen/%.c=$(B)/fuzz/obj/gen/%.o)
FUZZ_ENV     := UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=detect_stack_use_after_return=0
FUZZ_CFLAGS   = $(filter-out $(SAN),$(ALL_CFLAGS)) -O1 -Wno-unknown-warning-option -Wno-implicit-int-conversion \
                -Wno-shorten-64-to-32 -Wno-implicit-fallthrough -Wno-gnu-variable-sized-type-not-at-end $(FUZZ_SAN) -fsanitize=fuzzer-no-link

$(B)/fuzz/obj/%.o: %.c | $(GEN_C)
	@mkdir -p $(@D)
	$(call say,FUZ)
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -MMD -MP -c $< -o $@

$(B)/fuzz/obj/gen/%.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	$(call say,FUZ)
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -w -c $< -o $@

$(B)/fuzz/libaquifer.a: $(FUZZ_OBJ)
	$(call say,AR )
	$(Q)rm -f $@ && ar rcs $@ $^

$(FUZZ_TARGETS): $(B)/fuzz/%: $(B)/fuzz/obj/tests/fuzz/%.o $(B)/fuzz/libaquifer.a
	$(call say,LD )
	$(Q)$(FUZZ_CC) $^ $(FUZZ_SAN) -fsanitize=fuzzer $(LDFLAGS) $(ALL_LIBS) -o $@

# Those that live in the simulated world, with its catalog
$(B)/fuzz/agent $(B)/fuzz/server $(B)/fuzz/liar: $(B)/fuzz/obj/tests/sim/catalog_sim.o
$(B)/fuzz/liar: $(B)/fuzz/obj/tests/unit/liar.o

fuzz: $(FUZZ_TARGETS)

fuzz-brief: $(FUZZ_TARGETS)
	@sh tests/fuzz/run $(B) $(or $(FUZZ_SECONDS),5) $(sort $(notdir $(FUZZ_TARGETS)))

$(FUZZ_TARGETS:$(B)/fuzz/%=fuzz-%): fuzz-%: $(B)/fuzz/%
	@sh tests/fuzz/run $(B) $(or $(FUZZ_SECONDS),0) $*

-include $(shell find $(B)/fuzz/obj -name '*.d' 2>/dev/null)

.PHONY: fuzz fuzz-brief $(FUZZ_TARGETS:$(B)/fuzz/%=fuzz-%)
.SECONDARY: $(FUZZ_SRC:%.c=$(B)/fuzz/obj/%.o)
