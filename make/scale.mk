# scale: large numbers of things, with verified content: snapshots and clones, a volume of 16 TiB, segments on a server, attached volumes. Half an
# hour or so; make soak runs it too. SCRIPTS='tests/scale/…' runs only these; each says in its first lines what can be set.
$(B)/tools/crowd: ALL_LIBS += -lnbd
scale: all $(B)/tools/crowd $(B)/tools/segload $(B)/tools/catalogcheck
	$(Q)TEST_LIMIT=3600 VERBOSE=1 bash tests/run.sh $(or $(SCRIPTS),$(wildcard tests/scale/*.sh))

.PHONY: scale
