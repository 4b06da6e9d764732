# The crash test: real processes, killed with -9 under verified load. tests/crash/crash.sh says what it does.
#   make crash                        ROUNDS (10) rounds from a random seed, which is printed
#   make crash SEED=n [FIRST=r] [ROUNDS=k]    the choices of such a run again, from round r on

$(B)/tools/counter $(B)/tools/hammer $(B)/tools/roam: $(B)/obj/tests/tools/lib/target.o
$(B)/tools/counter $(B)/tools/hammer $(B)/tools/roam: ALL_LIBS += -lnbd

ROUNDS ?= 10
crash: all $(B)/tools/hammer
	@B=$(B) bash tests/crash/crash.sh $(ROUNDS) $(SEED) $(if $(SEED),$(FIRST))

.PHONY: crash
