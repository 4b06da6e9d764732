# bench: NBD servers side by side (needs fio, qemu-utils, qemu-system-common's storage daemon, nbdkit).
# See tests/bench/nbd for SECONDS_PER_CELL=, ROUNDS=, ROWS=, CELLS=.
bench: $(B)/aquifer-tapdisk
	$(Q)B=$(B) tests/bench/nbd

.PHONY: bench
