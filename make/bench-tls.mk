# bench-tls: what TLS costs between a tapdisk and a server.
bench-tls: $(PROGRAMS)
	tests/bench/tls $(SECONDS) $(ROUNDS)
.PHONY: bench-tls
