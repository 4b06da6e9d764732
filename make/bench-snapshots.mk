# bench-snapshots: what snapshots cost; see tests/bench/snapshots for SIZE=, PARTS=, MANY= …
$(B)/tools/pairload: ALL_LIBS += -lnbd
bench-snapshots: all $(B)/tools/snapload $(B)/tools/pairload
	$(Q)B=$(B) tests/bench/snapshots

.PHONY: bench-snapshots
