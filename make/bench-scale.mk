# bench-scale: a thousand servers and a hundred thousand volumes, simulated by the real code: maps of servers, a server's loss, what the catalog holds and bears, and
# what breaks first. A minute or two. ARGS='--servers N …': see tests/bench/scale/main.c; with etcd installed it also measures what one bears.
SCALE_OBJ = $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/bench/scale/*.c) $(addprefix tests/sim/,catalog_sim.c owner.c scenario.c))
$(B)/scale: $(SCALE_OBJ) $(B)/libaquifer.a
	$(call say,LD )
	$(Q)$(CC) $^ $(LDFLAGS) $(ALL_LIBS) -o $@

bench-scale: $(B)/scale $(B)/tools/catalogcheck
	$(Q)B=$(B) tests/bench/scale/run $(ARGS)

.PHONY: bench-scale
