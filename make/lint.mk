# tidy: house rules that a script can check: env leaks, layers, left-overs, tables, long files, cppcheck. Takes seconds.
# CLANG_TIDY=1 adds clang-tidy, which takes minutes.

tidy: $(B)/libaquifer.a
	@CLANG_TIDY=$(CLANG_TIDY) bash tests/tidy.sh $(B)

.PHONY: tidy
