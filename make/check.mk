# make check: installs what is missing, builds, and runs every suite; 17 minutes at most on two cores. tests/check.sh has the
# suites and their budgets. make interop: the scripts against real tools only.

check:
	@deploy/install-deps all
	@bash tests/check.sh $(SUITES)

interop: all tools
	@bash tests/run.sh $(SCRIPTS)

.PHONY: check interop

# What all engines of the catalog must do alike: a unit test for SQLite, a tool for etcd.
$(B)/unit $(B)/tools/catalogcheck: $(B)/obj/tests/tools/lib/catalog_conformance.o
