# The loop export against qemu-storage-daemon's: SECONDS per measurement, ROUNDS of them.
SECONDS ?= 3
ROUNDS  ?= 3
bench-loop: $(B)/aquifer-tapdisk
	tests/bench/loop $(SECONDS) $(ROUNDS)
.PHONY: bench-loop
