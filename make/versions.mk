# versions: the programs as of other versions of the protocol, for tests/interop/versions.sh: in old/ those that speak only the version
# before, in next/ a server that speaks only one that isn't there yet. One object each; the rest is the same.

OLD_PROGRAMS  := $(addprefix $(B)/old/,aquifer aquifer-agent aquifer-tapdisk aquifer-server)
NEXT_PROGRAMS := $(B)/next/aquifer-server
$(B)/old/protocol.o: VERSIONS := -DAQ_PROTOCOL_NEWEST=1 -DAQ_PROTOCOL_OLDEST=1
$(B)/next/protocol.o: VERSIONS := -DAQ_PROTOCOL_NEWEST=4 -DAQ_PROTOCOL_OLDEST=3

$(B)/old/protocol.o $(B)/next/protocol.o: proto/protocol.c proto/rpc.h | $(GEN_C)
	@mkdir -p $(@D)
	$(call say,CC )
	$(Q)$(CC) $(ALL_CFLAGS) $(VERSIONS) -c $< -o $@

$(filter-out %-server,$(OLD_PROGRAMS)): $(B)/old/%: $(B)/obj/agent/%.o $(B)/old/protocol.o $(B)/libaquifer.a
$(B)/old/aquifer-server $(B)/next/aquifer-server: $(B)/%/aquifer-server: $(B)/obj/server/aquifer-server.o $(B)/%/protocol.o $(B)/libaquifer.a
$(OLD_PROGRAMS) $(NEXT_PROGRAMS):
	$(call say,LD )
	$(Q)$(CC) $(filter %.o,$^) $(filter %.a,$^) $(LDFLAGS) $(ALL_LIBS) -o $@

versions: $(OLD_PROGRAMS) $(NEXT_PROGRAMS)
tools: versions
.PHONY: versions
