# tsan: env_linux with ThreadSanitizer, in build/tsan. Only its worker threads, and what is handed to
# them, can race: all else is one thread. Criterion cannot run under this sanitizer (it maps memory
# where the sanitizer keeps its own), so env_bench is what runs: reads and writes through the workers
# and past them, over a stream, with fibers.

TSAN_RUN = TSAN_OPTIONS=halt_on_error=1 build/tsan/tools/env_bench build/tsan/data

tsan:
	+$(Q)$(MAKE) B=build/tsan SAN=-fsanitize=thread OPT='-O1 -fno-omit-frame-pointer' build/tsan/tools/env_bench
	$(Q)dd if=/dev/urandom of=build/tsan/data bs=1M count=16 status=none
	$(Q)for how in 'r 32 1' 'w 32 1' 'r 32 1 buffered' 'w 32 1 buffered' 'r 32 1 odd' 'w 32 1 odd' 'w 1 1 odd'; do $(TSAN_RUN) $$how || exit 1; done
	$(Q)rm -f build/tsan/data

.PHONY: tsan
