# bench-handover: how long requests wait when a volume moves; see tests/bench/handover for MOVES=
bench-handover: all $(B)/tools/roam $(B)/tools/catalogcheck
	$(Q)B=$(B) tests/bench/handover

.PHONY: bench-handover
