# bench: NBD servers side by side (needs fio, qemu-utils, qemu-system-common's storage daemon, nbdkit).
# See tests/bench/nbd for SECONDS_PER_CELL=, ROUNDS=, ROWS=, CELLS=.
bench: $(B)/aquifer-tapdisk
	$(Q)B=$(B) tests/bench/nbd

.PHONY: bench

# bench-snapshots: what snapshots cost; see tests/bench/snapshots for SIZE=, PARTS=, MANY= …
$(B)/tools/pairload: ALL_LIBS += -lnbd
bench-snapshots: all $(B)/tools/snapload $(B)/tools/pairload
	$(Q)B=$(B) tests/bench/snapshots

.PHONY: bench-snapshots

# bench-handover: how long requests wait when a volume moves; see tests/bench/handover for MOVES=
bench-handover: all $(B)/tools/roam $(B)/tools/catalogcheck
	$(Q)B=$(B) tests/bench/handover

.PHONY: bench-handover

# bench-cluster: three servers, etcd, two hosts: bytes written, stalls, takeover, snapshots, overwriting, rebuild; see tests/bench/cluster for PARTS=, SIZE= …
bench-cluster: all $(B)/tools/snapload $(B)/tools/catalogcheck
	$(Q)B=$(B) tests/bench/cluster

.PHONY: bench-cluster
