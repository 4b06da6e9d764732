# bench-loop: the loop export against qemu-storage-daemon's: SECONDS per measurement, ROUNDS of them.
# bench-loop-loss: what qemu-storage-daemon's FUSE export loses under a loop device, and ours doesn't.
SECONDS ?= 3
ROUNDS  ?= 3
bench-loop: $(B)/aquifer-tapdisk
	tests/bench/loop $(SECONDS) $(ROUNDS)

bench-loop-loss: $(B)/aquifer-tapdisk $(B)/tools/hammer
	tests/bench/loop-peer-loss
.PHONY: bench-loop bench-loop-loss
